"""Maps of single tokens that go with a decision.

lens        makes of a stopping token what the decoder, trained on the last layer's tokens, can read
correction  makes of a token that went through layers with few others what these layers would have made of it among all
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import LensConfig


class Lens(nn.Module):
    """L: x [.., E] → [.., E], an affine map and, with hidden channels, a two-layer perceptron beside it.

    Starts as the identity."""

    def __init__(self, config: LensConfig, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.hidden = nn.Linear(dim, config.hidden) if config.hidden else None
        self.out = nn.Linear(config.hidden, dim, bias=False) if config.hidden else None
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if self.out is not None:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        if self.hidden is not None and self.out is not None:
            y = y + self.out(F.gelu(self.hidden(x)))
        return y


class Correction(Lens):
    """C: tokens [B, P+M, E] → [B, P+M, E], patch tokens x to x + r (C x - x), prefix tokens as they are.

    r is the share of the N = `count` patch tokens that has stopped, 1 - M/N: where none has, nothing changes."""

    def __init__(self, config: LensConfig, dim: int, prefix: int, count: int) -> None:
        super().__init__(config, dim)
        self.prefix, self.count = prefix, count

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.prefix :]  # [B, M, E]
        # M as a sum of ones: a number of the graph that is exported, whatever it runs on
        left = torch.ones_like(patches[:, :, :1]).sum(dim=1, keepdim=True)  # [B, 1, 1]
        stopped = 1 - left / self.count
        corrected = patches + stopped * (super().forward(patches) - patches)
        return torch.cat([x[:, : self.prefix], corrected], dim=1)
