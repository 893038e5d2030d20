"""Material textures: noise at several scales, in pixels and not in metres, like the noise of a camera."""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import numpy as np
from PIL import Image

TILE = 512


class Material(IntEnum):
    """What a surface is made of."""

    SMOOTH = 0
    SKY = 1
    ASPHALT = 2
    PAVING = 3
    PLASTER = 4
    BRICK = 5
    LEAVES = 6
    GRASS = 7
    CLOTH = 8


# material: amplitudes of coarse, middle and fine noise, in grey levels
GRAINS = {
    Material.SMOOTH: (2, 1, 1),
    Material.SKY: (5, 2, 0),
    Material.ASPHALT: (6, 5, 6),
    Material.PAVING: (6, 6, 7),
    Material.PLASTER: (8, 6, 4),
    Material.BRICK: (7, 8, 9),
    Material.LEAVES: (10, 18, 16),
    Material.GRASS: (9, 10, 14),
    Material.CLOTH: (4, 8, 4),
}


@cache
def tiles() -> np.ndarray:
    """[materials, TILE, TILE] int8, made once."""
    random = np.random.default_rng(20230805)
    octaves = [_noise(random, size) for size in (12, 64, 256)]
    stacked = [sum(amplitude * octave for amplitude, octave in zip(GRAINS[m], octaves, strict=True)) for m in Material]
    bricks = np.zeros((TILE, TILE))
    bricks[::8] -= 14  # mortar
    for course in range(0, TILE, 8):
        bricks[course : course + 8, (course // 8 % 2) * 8 :: 16] -= 10
    stacked[Material.BRICK] = stacked[Material.BRICK] + bricks
    paving = np.zeros((TILE, TILE))
    paving[::16] -= 10
    paving[:, ::20] -= 8
    stacked[Material.PAVING] = stacked[Material.PAVING] + paving
    return np.clip(np.stack(stacked), -127, 127).astype(np.int8)


def textured(image: np.ndarray, materials: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """`image` [H, W, 3] float32 with the grain of `materials` [H, W] uint8 added; `offset` moves the tiles."""
    height, width = materials.shape
    rows = (np.arange(height) + offset[0]) % TILE
    columns = (np.arange(width) + offset[1]) % TILE
    grain = tiles()[materials, rows[:, None], columns[None, :]]  # [H, W]
    return image + grain[..., None]


def _noise(random: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise [TILE, TILE] with `size` independent values a side, of unit deviation; it repeats without a seam."""
    values = random.normal(0, 1, (size, size)).astype(np.float32)
    wrapped = np.pad(values, 2, mode="wrap")
    scale = TILE / size
    border = round(2 * scale)
    whole = Image.fromarray(wrapped).resize((TILE + 2 * border, TILE + 2 * border), Image.Resampling.BICUBIC)
    smooth = np.asarray(whole)[border : border + TILE, border : border + TILE]
    return smooth / smooth.std()
