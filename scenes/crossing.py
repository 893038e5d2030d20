"""A car that crosses the street: seen from its side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas, Colour, lit
from dovit.scenes.classes import CAR
from dovit.scenes.textures import Material
from dovit.scenes.vehicles import GLASS, TYRE, random_paint

# The side of a car that drives to the right, in shares of its length (from the tail) and height.
BODY = ((0.0, 0.16), (1.0, 0.16), (1.0, 0.5), (0.72, 0.58), (0.58, 1.0), (0.2, 1.0), (0.06, 0.6), (0.0, 0.55))
PANES = (((0.12, 0.6), (0.37, 0.6), (0.37, 0.93), (0.22, 0.93)), ((0.4, 0.6), (0.69, 0.6), (0.57, 0.93), (0.4, 0.93)))
WHEELS = (0.19, 0.81)


@dataclass(frozen=True)
class CrossingCar:
    """A car at right angles to the street; x is the middle, z the side that we see."""

    x: float
    z: float
    length: float
    height: float
    heading: int  # -1 left, 1 right
    paint: Colour

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, body, panes, wheels."""
        z, half = self.z, self.length / 2
        shadow = camera.flat(self.x - half, self.x + half, z - 0.2, z + 1.7)
        canvas.polygon(shadow, (22, 22, 26), None, Material.ASPHALT, z)
        canvas.polygon([self._at(camera, *p) for p in BODY], self.paint, CAR, Material.SMOOTH, z)
        sill = [self._at(camera, *p) for p in ((0.0, 0.16), (1.0, 0.16), (1.0, 0.24), (0.0, 0.24))]
        canvas.polygon(sill, lit(self.paint, 0.6), None, Material.SMOOTH, z)
        for pane in PANES:
            canvas.polygon([self._at(camera, *p) for p in pane], GLASS, None, Material.SMOOTH, z)
        scale = camera.scale(z)
        for share in WHEELS:
            centre = camera.at(self._x(share), 0.32, z)
            canvas.ellipse(centre, (0.32 * scale, 0.32 * scale), TYRE, CAR, Material.SMOOTH, z)
            canvas.ellipse(centre, (0.18 * scale, 0.18 * scale), (120, 120, 124), None, Material.SMOOTH, z)

    def _at(self, camera: Camera, along: float, up: float) -> tuple[float, float]:
        return camera.at(self._x(along), up * self.height, self.z)

    def _x(self, along: float) -> float:
        return self.x + self.heading * (along - 0.5) * self.length


def random_crossing(random: np.random.Generator, x: float, z: float) -> CrossingCar:
    """A saloon or a hatchback."""
    heading = 1 if random.random() < 0.5 else -1
    return CrossingCar(x, z, random.uniform(3.8, 4.7), random.uniform(1.38, 1.6), heading, random_paint(random))
