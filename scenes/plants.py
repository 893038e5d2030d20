"""Trees and bushes: crowns of many blobs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas
from dovit.scenes.classes import VEGETATION
from dovit.scenes.textures import Material


@dataclass(frozen=True)
class Plant:
    """A crown of `blobs` [n, 3], each its x and y in metres from the foot and its radius; no trunk for a bush."""

    x: float
    z: float
    trunk: float  # height in metres
    blobs: np.ndarray
    colours: np.ndarray  # [n, 3]

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Trunk, then the blobs from dark to light."""
        if self.trunk:
            foot, top = 0.17, 0.11
            points = [
                camera.at(self.x - foot, 0, self.z),
                camera.at(self.x + foot, 0, self.z),
                camera.at(self.x + top, self.trunk + 0.8, self.z),
                camera.at(self.x - top, self.trunk + 0.8, self.z),
            ]
            canvas.polygon(points, (72, 60, 50), VEGETATION, Material.LEAVES, self.z)
        scale = camera.scale(self.z)
        for (dx, dy, radius), colour in zip(self.blobs, self.colours, strict=True):
            centre = camera.at(self.x + dx, self.trunk + dy, self.z)
            radii = radius * scale, 0.85 * radius * scale
            canvas.ellipse(centre, radii, (colour[0], colour[1], colour[2]), VEGETATION, Material.LEAVES, self.z)


def random_plant(random: np.random.Generator, x: float, z: float, *, tree: bool) -> Plant:
    """A tree of 4 to 10 metres, or a bush."""
    size = random.uniform(1.2, 2.8) if tree else random.uniform(0.4, 1.0)
    trunk = random.uniform(1.8, 3.4) if tree else 0.0
    count = int(random.integers(24, 44)) if tree else 14
    # Large blobs fill the crown; small ones, farther out, make its outline ragged.
    out = np.sqrt(random.random(count))
    turn = random.uniform(0, 2 * np.pi, count)
    middle = 0.9 if tree else 0.3
    tall = random.uniform(0.6, 1.0) if tree else 0.4
    blobs = np.column_stack(
        [
            0.72 * size * out * np.cos(turn),
            size * (middle + tall * out * np.sin(turn)),
            size * (0.5 - 0.34 * out) * random.uniform(0.7, 1.2, count),
        ]
    )
    base = random.uniform((40, 66, 26), (92, 120, 66))
    light = np.sort(random.uniform(0.65, 1.25, count))
    return Plant(x, z, trunk, blobs, base * light[:, None])
