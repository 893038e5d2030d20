"""The lens of a decision: makes of a token what the decoder, trained on the last layer's tokens, can read."""

from __future__ import annotations

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
