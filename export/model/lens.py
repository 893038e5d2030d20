"""Maps of tokens that go with a decision, or with all of them.

lens        makes of a stopping token what the decoder, trained on later layers' tokens, can read
correction  makes of a token that went through layers with few others what these layers would have made of it among all
refinement  makes of the full sequence, of tokens that stopped at different layers, what the decoder would have read without
            token pass
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import CorrectionConfig, LensConfig, RefinementConfig

NORM_EPS = 1e-6


class TokenwiseMap(nn.Module):
    """x [.., E] → [.., E], an affine map and, with hidden channels, a two-layer perceptron beside it.

    Starts as the identity."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.hidden = nn.Linear(dim, hidden) if hidden else None
        self.out = nn.Linear(hidden, dim, bias=False) if hidden else None
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if self.out is not None:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        if self.hidden is not None and self.out is not None:
            y = y + self.out(F.gelu(self.hidden(x)))
        return y


class _Neighbourhood(nn.Module):
    """What a patch's token gets from the patches around it: W₂ gelu(W₁ (u + D u) + b₁), where u is the normed map and D a
    depthwise convolution, which starts as the mean. W₂ starts as 0."""

    def __init__(self, config: LensConfig | RefinementConfig, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(dim, NORM_EPS)
        self.depthwise = nn.Conv2d(dim, dim, config.kernel, padding=config.kernel // 2, groups=dim)
        self.hidden = nn.Linear(dim, config.hidden)
        self.out = nn.Linear(config.hidden, dim, bias=False)
        nn.init.constant_(self.depthwise.weight, config.kernel**-2)
        nn.init.zeros_(cast(Tensor, self.depthwise.bias))
        nn.init.zeros_(self.out.weight)

    def seen(self, full: Tensor) -> Tensor:
        """u + D u of the map `full` [B, N, E] → [B, N, E]."""
        normed = self.norm(full)
        around = self.depthwise(normed.transpose(1, 2).unflatten(2, self.grid)).flatten(2).transpose(1, 2)
        return cast(Tensor, normed + around)

    def added(self, seen: Tensor) -> Tensor:
        """What is added to the tokens whose u + D u are `seen` [B, .., E]: the same shape."""
        return cast(Tensor, self.out(F.gelu(self.hidden(seen))))


class Neighbours(_Neighbourhood):
    """What a lens of a kernel larger than 1 adds to the tokens of its decision. Adds nothing at first."""

    def __init__(self, config: LensConfig, dim: int, prefix: int, grid: tuple[int, int]) -> None:
        super().__init__(config, dim, grid)
        self.prefix = prefix

    def forward(self, tokens: Tensor, full: Tensor, index: Tensor) -> Tensor:
        """Tokens [B, P+M, E] of the patches at `index` [B, M], and the map that they are part of, `full` [B, N, E] → tokens
        [B, P+M, E]; prefix tokens stay as they are."""
        where = index.long()[..., None].expand(-1, -1, full.shape[2])
        seen = self.seen(full).gather(1, where)  # [B, M, E]
        return tokens + F.pad(self.added(seen), (0, 0, self.prefix, 0))


class Refinement(_Neighbourhood):
    """R: the full sequence [B, N, E] → [B, N, E], in front of the decoder. Starts as the identity."""

    def forward(self, full: Tensor) -> Tensor:
        return full + self.added(self.seen(full))


class Lens(TokenwiseMap):
    """L. `forward` maps each token alone; where the kernel is larger than 1 `DoViT.through_lens` adds `neighbours`."""

    def __init__(self, config: LensConfig, dim: int, prefix: int, grid: tuple[int, int]) -> None:
        super().__init__(dim, config.hidden if config.kernel == 1 else 0)
        self.neighbours = Neighbours(config, dim, prefix, grid) if config.kernel > 1 else None


class Correction(TokenwiseMap):
    """C: tokens [B, P+M, E] → [B, P+M, E], patch tokens x to x + r (C x - x), prefix tokens as they are.

    r is the share of the N = `count` patch tokens that has stopped, 1 - M/N: where none has, nothing changes."""

    def __init__(self, config: CorrectionConfig, dim: int, prefix: int, count: int) -> None:
        super().__init__(dim, config.hidden)
        self.prefix, self.count = prefix, count

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.prefix :]  # [B, M, E]
        # M as a sum of ones: a number of the graph that is exported, whatever it runs on
        left = torch.ones_like(patches[:, :, :1]).sum(dim=1, keepdim=True)  # [B, 1, 1]
        stopped = 1 - left / self.count
        corrected = patches + stopped * (super().forward(patches) - patches)
        return torch.cat([x[:, : self.prefix], corrected], dim=1)
