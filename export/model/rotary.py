"""Rotary positions: queries and keys of a patch are turned by angles that its place in the image says (DINOv3).

The angles depend on the image size alone, so they are a table with a row for each patch. After a decision the rows of the kept
patches are gathered by their index; prefix tokens are turned by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotary_periods(head_dim: int, theta: float = 100.0) -> tuple[float, ...]:
    """d/4 periods of a head of d channels, from 1 up to less than `theta`, in units of half an image side."""
    return tuple(theta ** (4 * k / head_dim) for k in range(head_dim // 4))


def rotary_table(periods: Sequence[float], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the patches, each [N, d] float32 with d = 4·len(periods).

    Channel c < d/2 makes a pair with channel c + d/2. The sines of the first half of the channels are negated already.
    """
    down, across = ((np.arange(n) + 0.5) / n * 2 - 1 for n in grid)  # centres of patches, from -1 to 1
    places = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2, 1)  # [N, 2, 1]
    angles = (2 * np.pi * places / np.asarray(periods)).reshape(len(places), -1)  # [N, d/2]
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys x [B, heads, T, d], turned; cosine and sine [B, 1, T, d], or [1, 1, T, d] for all images."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([second, first], dim=-1) * sine


class RotaryPositions(nn.Module):
    """The table for one grid of patches. It is computed, so it is in no checkpoint."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, periods: Sequence[float], prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.prefix = prefix
        # by numpy, so that they have values where a model is made without memory, on torch's meta device
        for name, table in zip(("cosine", "sine"), rotary_table(periods, grid), strict=True):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the prefix tokens and of the patches at `index` [B, M]: each [B, 1, P+M, d]."""
        rows = index.long()
        cosine = F.pad(self.cosine[rows], (0, 0, self.prefix, 0), value=1.0)  # [B, P+M, d]: an angle of 0 turns nothing
        sine = F.pad(self.sine[rows], (0, 0, self.prefix, 0))
        return cosine[:, None], sine[:, None]
