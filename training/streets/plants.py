"""Trees and bushes: crowns of many blobs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import VEGETATION
from dovit.training.streets.textures import Material


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
            brown: Colour = (72, 60, 50)
            points = camera.upright(self.x - 0.14, self.x + 0.14, 0, self.trunk, self.z)
            canvas.polygon(points, brown, VEGETATION, Material.LEAVES, self.z)
        scale = camera.scale(self.z)
        for (dx, dy, radius), colour in zip(self.blobs, self.colours, strict=True):
            centre = camera.at(self.x + dx, self.trunk + dy, self.z)
            radii = radius * scale, 0.9 * radius * scale
            canvas.ellipse(centre, radii, (colour[0], colour[1], colour[2]), VEGETATION, Material.LEAVES, self.z)


def random_plant(random: np.random.Generator, x: float, z: float, *, tree: bool) -> Plant:
    """A tree of 4 to 10 metres, or a bush."""
    size = random.uniform(1.2, 2.8) if tree else random.uniform(0.4, 1.0)
    trunk = random.uniform(1.8, 3.4) if tree else 0.0
    count = int(random.integers(10, 22)) if tree else 7
    blobs = np.column_stack(
        [
            0.5 * size * random.uniform(-1, 1, count) * random.uniform(0.4, 1.6),
            random.uniform(0.2, 1.6, count) * size if tree else random.uniform(0.1, 0.6, count) * size,
            random.uniform(0.3, 0.65, count) * size,
        ]
    )
    base = random.uniform((40, 66, 26), (92, 120, 66))
    light = np.sort(random.uniform(0.7, 1.25, count))
    return Plant(x, z, trunk, blobs, base * light[:, None])
