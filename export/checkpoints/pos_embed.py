"""Positional embeddings for another grid of patches, resized as each family's own code does it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dovit.export.model.config.bounds import MAX_TOKENS
from dovit.runtime.bundle.check import MAX_PIXELS
from dovit.runtime.errors import DovitError, UsageError


@dataclass(frozen=True)
class Interpolation:
    """How a family's code resizes positions: torch's interpolation `mode`, and whether it antialiases.

    `offset`: patches added to the new grid where the scale is computed from it. DINO and DINOv2 hand torch the scale
    (h + 0.1) / trained h in the place of the size h, so their samples lie a little closer together.
    """

    mode: str
    antialias: bool = False
    offset: float = 0.0

    def __str__(self) -> str:
        return (
            self.mode + (", antialiased" if self.antialias else "") + (f", offset {self.offset}" if self.offset else "")
        )


def check_bounds(size: tuple[int, int], source: str) -> None:
    """UsageError for an image size that is too large to resize positions to; `source` says it."""
    height, width = size
    if max(height, width) > MAX_PIXELS or height * width > MAX_TOKENS * 16**2:
        raise UsageError(
            f"{source} {height}x{width}: too large; at most {MAX_PIXELS} pixels a side and {MAX_TOKENS * 16**2} in all"
        )


def image_size_for(
    rows: int, patch: int, asked: tuple[int, int] | None, stated: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(height, width) of the model: what the user asks for, else `stated`, what the file's configuration says, else the square
    that `rows` patches make. UsageError where the size is no multiple of the patch, or none of the three is there."""
    for size, source in ((asked, "--image-size"), (stated, "the configuration's image size")):
        if size is None:
            continue
        if any(side < patch or side % patch for side in size):
            raise UsageError(f"{source} {size[0]}x{size[1]}: both sides must be multiples of the patch size {patch}")
        return size
    side = math.isqrt(rows)
    if side * side != rows:
        raise UsageError(f"the checkpoint has {rows} positions, which are no square: say --image-size HEIGHTxWIDTH")
    return side * patch, side * patch


def trained_grid(
    rows: int, patch: int, asked: tuple[int, int] | None, stated: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(h, w) of the grid that `rows` positions were trained on: of `stated`, the image size in pixels that the file's
    configuration says; else the square; else of `asked`, the user's image size, where the counts are equal.

    DovitError where `stated` has another count; UsageError where nothing says which grid it is.
    """
    if stated is not None:
        grid = stated[0] // patch, stated[1] // patch
        if grid[0] * grid[1] != rows:
            raise DovitError(
                f"the configuration says {stated[0]}×{stated[1]}, which is {grid[0]}×{grid[1]} patches of {patch}, and the "
                f"checkpoint has {rows} positions: give the configuration that the file was trained with"
            )
        return grid
    side = math.isqrt(rows)
    if side * side == rows:
        return side, side
    grid = (asked[0] // patch, asked[1] // patch) if asked else (0, 0)
    if grid[0] * grid[1] != rows:
        raise UsageError(
            f"the checkpoint has {rows} positions, which are no square, and nothing says of which grid they are: "
            f"use the image size that it was trained with"
        )
    return grid


def check_order(trained: tuple[int, int], grid: tuple[int, int], patch: int, where: str, key: str) -> None:
    """UsageError where a configuration itself runs positions of the grid `trained` on another `grid` of as many patches:
    mmsegmentation and segmenter compare the counts only, and do not resize them there. `key`: its name of the trained size."""
    if grid == trained or grid[0] * grid[1] != trained[0] * trained[1]:
        return
    size, other = (f"{h * patch}, {w * patch}" for h, w in (trained, grid))
    raise UsageError(
        f"{where}: its positions are of images of ({size}), and its windows or images of as many patches are ({other}): the "
        f"family's code takes the positions in their order there, as --set '{key}=({other})' does; --image-size "
        f"{grid[0] * patch}x{grid[1] * patch} resizes them"
    )


def resize_positions(
    rows: Tensor, grid: tuple[int, int], how: Interpolation, *, trained: tuple[int, int] | None = None
) -> Tensor:
    """rows [N0, E] → [h·w, E] for `grid` (h, w), corners not aligned.

    `trained` is the grid of the rows; None: their square (UsageError where they are none). Another grid of as many patches is
    resized like any other: mmsegmentation and timm would take the rows in another order there.
    """
    side = math.isqrt(len(rows))
    h, w = trained or (side, side)
    if h * w != len(rows):
        raise UsageError(
            f"the checkpoint's {len(rows)} positions are no square and cannot be resized to {grid[0]}×{grid[1]}: "
            f"use the image size that it was trained with"
        )
    if (h, w) == grid:
        return rows
    image = rows.float().T.reshape(1, rows.shape[1], h, w)  # [1, E, h, w]
    size: dict[str, Any] = {"size": grid}
    if how.offset:
        size = {"scale_factor": ((grid[0] + how.offset) / h, (grid[1] + how.offset) / w)}
    with torch.no_grad():
        resized = F.interpolate(image, mode=how.mode, align_corners=False, antialias=how.antialias, **size)
    return resized[0].flatten(1).T  # [h'·w', E]
