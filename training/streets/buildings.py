"""Rows of houses along the street, with windows, doors and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import BUILDING
from dovit.training.streets.textures import Material

# Walls are grey as the road, pale as the sky, green as trees as well as red and yellow: colour alone does not tell them.
WALLS: tuple[tuple[Colour, Material], ...] = (
    ((112, 110, 108), Material.PLASTER),
    ((86, 88, 94), Material.PLASTER),
    ((198, 204, 212), Material.PLASTER),
    ((186, 170, 140), Material.PLASTER),
    ((150, 84, 66), Material.BRICK),
    ((128, 96, 74), Material.BRICK),
    ((108, 122, 92), Material.PLASTER),
    ((204, 180, 120), Material.PLASTER),
)


@dataclass(frozen=True)
class House:
    """One house on one side: its wall along the street at x, from z0 to z1, `height` tall."""

    side: int  # -1 left, 1 right
    x: float
    z0: float
    z1: float
    height: float
    wall: Colour
    material: Material
    glass: float
    storey: float

    @property
    def z(self) -> float:
        """For the painter's order: a house is behind everything that stands before its middle."""
        return self.z1

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """The wall that faces the camera, then the one along the street."""
        front = camera.upright(self.x, self.x + self.side * 14, 0, self.height, self.z0)
        darker = (self.wall[0] * 0.82, self.wall[1] * 0.82, self.wall[2] * 0.84)
        canvas.polygon(front, darker, BUILDING, self.material, self.z0)
        canvas.polygon(
            camera.along(self.x, 0, self.height, self.z0, self.z1), self.wall, BUILDING, self.material, self.z0
        )
        self._draw_windows(canvas, camera)
        eaves = (self.wall[0] * 0.6, self.wall[1] * 0.55, self.wall[2] * 0.55)
        canvas.polygon(
            camera.along(self.x, self.height - 0.5, self.height, self.z0, self.z1), eaves, BUILDING, self.material, self.z0
        )

    def _draw_windows(self, canvas: Canvas, camera: Camera) -> None:
        columns = max(1, int((self.z1 - self.z0) / 2.6))
        pitch = (self.z1 - self.z0) / columns
        glass = (self.glass, self.glass * 1.04, self.glass * 1.1)
        frame = min(255.0, self.wall[0] + 30), min(255.0, self.wall[1] + 30), min(255.0, self.wall[2] + 30)
        fine = camera.scale(self.z0) > 12  # frames are seen from near only
        for column in range(columns):
            a = self.z0 + (column + 0.25) * pitch
            b = self.z0 + (column + 0.75) * pitch
            for bottom in np.arange(1.0, self.height - 2.0, self.storey):
                if fine:
                    canvas.polygon(
                        camera.along(self.x, bottom - 0.12, bottom + 1.62, a - 0.12, b + 0.12),
                        frame, None, self.material, a,
                    )  # fmt: skip
                canvas.polygon(camera.along(self.x, bottom, bottom + 1.5, a, b), glass, None, self.material, a)


def random_houses(random: np.random.Generator, side: int, x: float) -> list[House]:
    """A row of houses from the camera to far away, with gaps."""
    houses = []
    z = random.uniform(1.5, 6)
    base = random.uniform(4, 14)
    while z < 110:
        depth = random.uniform(6, 18)
        if random.random() < 0.82:
            colour, material = WALLS[int(random.integers(len(WALLS)))]
            tint = random.uniform(-16, 16) + random.uniform(-8, 8, 3)
            wall = (colour[0] + tint[0], colour[1] + tint[1], colour[2] + tint[2])
            houses.append(
                House(
                    side, x + side * random.uniform(0, 1.5), z, z + depth, base * random.uniform(0.6, 1.5),
                    wall, material, random.uniform(35, 190), random.uniform(2.7, 3.6),
                )
            )  # fmt: skip
        z += depth + random.choice([0, 0, random.uniform(1, 8)])
    return houses
