"""Rotary positions: queries and keys of a patch are turned by angles that its place in the image says (DINOv3).

The angles depend on the image size alone, so they are a table with a row for each patch. After a decision the rows of the kept
patches are gathered by their index; prefix tokens are turned by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dovit.export.model.token_pass import Cells


def rotary_periods(head_dim: int, theta: float = 100.0) -> tuple[float, ...]:
    """d/4 periods of a head of d channels, from 1 up to less than `theta`, in units of half an image side."""
    return tuple(theta ** (4 * k / head_dim) for k in range(head_dim // 4))


def rotary_angles(periods: Sequence[float], at: tuple[np.ndarray, np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Angles [rows·columns, d/2] of the places `at` these rows and columns of a grid (h, w) of patches, which has the middles of
    patches at whole numbers."""
    down, across = ((place + 0.5) / n * 2 - 1 for place, n in zip(at, grid, strict=True))  # from -1 to 1
    places = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2, 1)  # [N, 2, 1]
    return (2 * np.pi * places / np.asarray(periods)).reshape(len(places), -1)


def rotary_table(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of angles [N, d/2], each [N, d] float32.

    Channel c < d/2 makes a pair with channel c + d/2. The sines of the first half of the channels are negated already.
    """
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys x [B, heads, T, d], turned; cosine and sine [B, 1, T, d], or [1, 1, T, d] for all images."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([second, first], dim=-1) * sine


class RotaryPositions(nn.Module):
    """The table for one grid of patches, and for the tokens before the patches: prefix tokens, which are turned by nothing, and
    with `cells` their merged tokens, which are where the middle of the cell is. It is computed, so it is in no checkpoint."""

    cosine: Tensor  # [N, d]
    sine: Tensor
    cosine_before: Tensor  # [P, d], or [P+G, d]
    sine_before: Tensor

    def __init__(
        self, periods: Sequence[float], prefix: int, grid: tuple[int, int], cells: Cells | None = None
    ) -> None:
        super().__init__()
        angles = rotary_angles(periods, (np.arange(grid[0]), np.arange(grid[1])), grid)
        before = np.zeros((prefix, angles.shape[1]))
        if cells is not None:
            before = np.concatenate([before, rotary_angles(periods, cells.middles(), grid)])
        # by numpy, so that they have values where a model is made without memory, on torch's meta device
        for suffix, of in (("", angles), ("_before", before)):
            for name, table in zip(("cosine", "sine"), rotary_table(of), strict=True):
                self.register_buffer(name + suffix, torch.from_numpy(table), persistent=False)

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the tokens before the patches and of the patches at `index` [B, M]: each [B, 1, P+M, d]."""
        rows = index.long()

        def placed(before: Tensor, table: Tensor) -> Tensor:
            return torch.cat([before.expand(rows.shape[0], -1, -1), table[rows]], dim=1)[:, None]

        return placed(self.cosine_before, self.cosine), placed(self.sine_before, self.sine)
