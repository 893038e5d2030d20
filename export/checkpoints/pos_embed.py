"""Positional embeddings for another image size, resized as each family does it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dovit.runtime.errors import UsageError


def image_size_for(rows: int, patch: int, asked: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width): what the user asks for, or the square that `rows` patches make. UsageError where neither works."""
    if asked is not None:
        if any(side < patch or side % patch for side in asked):
            raise UsageError(
                f"--image-size {asked[0]}x{asked[1]}: both sides must be multiples of the patch size {patch}"
            )
        return asked
    side = math.isqrt(rows)
    if side * side != rows:
        raise UsageError(f"the checkpoint has {rows} positions, which are no square: say --image-size HEIGHTxWIDTH")
    return side * patch, side * patch


def resize_positions(rows: Tensor, grid: tuple[int, int], mode: str, *, antialias: bool = False) -> Tensor:
    """rows [N0, E] → [h·w, E] for `grid` (h, w), with corners not aligned.

    Unchanged where the count is the same, as mmsegmentation has it: a file trained on 4×6 patches is of that grid.
    Raises UsageError if another grid is asked of positions that are no square.
    """
    if rows.shape[0] == grid[0] * grid[1]:
        return rows
    side = math.isqrt(rows.shape[0])
    if side * side != rows.shape[0]:
        raise UsageError(
            f"the checkpoint's {rows.shape[0]} positions are no square and cannot be resized to {grid[0]}×{grid[1]}: "
            f"use the image size that it was trained with"
        )
    square = rows.float().T.reshape(1, rows.shape[1], side, side)
    with torch.no_grad():
        resized = F.interpolate(square, grid, mode=mode, align_corners=False, antialias=antialias)
    return resized[0].flatten(1).T
