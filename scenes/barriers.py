"""Walls and fences along the street."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera, Face
from dovit.scenes.canvas import Canvas, Colour, lit
from dovit.scenes.classes import FENCE, WALL
from dovit.scenes.textures import Material

# The greens and browns are those of hedges and trunks, the greys those of houses and pavements.
STONES: tuple[tuple[Colour, Material], ...] = (
    ((128, 126, 122), Material.PLASTER),
    ((146, 92, 74), Material.BRICK),
    ((66, 80, 58), Material.PLASTER),
    ((176, 168, 150), Material.PLASTER),
)
WOODS: tuple[Colour, ...] = ((108, 84, 60), (72, 88, 66), (150, 146, 140), (52, 54, 56))


@dataclass(frozen=True)
class Wall:
    """A massive wall at x, from z0 to z1."""

    x: float
    z0: float
    z1: float
    height: float
    colour: Colour
    material: Material

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """The wall, then the pale stones on it."""
        body = camera.along(self.x, 0, self.height, self.z0, self.z1)
        canvas.polygon(body, self.colour, WALL, self.material, self.z0)
        cap = camera.along(self.x, self.height - 0.12, self.height, self.z0, self.z1)
        canvas.polygon(cap, lit(self.colour, 1.2), None, self.material, self.z0)


@dataclass(frozen=True)
class Fence:
    """A fence at x, from z0 to z1: closed boards, or rails and bars that one sees through."""

    x: float
    z0: float
    z1: float
    height: float
    colour: Colour
    closed: bool

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """What one sees between the bars keeps its own label."""
        face = Face(camera, self.x, self.z0, 0, 1)
        length = self.z1 - self.z0
        if self.closed:
            whole = face.rectangle(0, length, 0, self.height)
            canvas.polygon(whole, self.colour, FENCE, Material.PLASTER, self.z0)
        else:
            for v in (0.2, self.height - 0.1):
                rail = face.rectangle(0, length, v - 0.04, v + 0.04)
                canvas.polygon(rail, self.colour, FENCE, Material.SMOOTH, self.z0)
        pitch = 0.5 if self.closed else 0.3
        for u in np.arange(0, length, pitch):
            width = 0.04 if self.closed else 0.1
            bar = face.rectangle(u, u + width, 0, self.height)
            label = None if self.closed else FENCE
            colour = lit(self.colour, 0.6 if self.closed else 1.0)
            canvas.polygon(bar, colour, label, Material.SMOOTH, face.distance(u))


Barrier = Wall | Fence


def random_barrier(random: np.random.Generator, x: float, z0: float, z1: float) -> Barrier:
    """A wall or a fence of 1 to 2.6 metres."""
    light = random.uniform(0.8, 1.15)
    if random.random() < 0.5:
        colour, material = STONES[int(random.integers(len(STONES)))]
        return Wall(x, z0, z1, random.uniform(1.1, 2.6), lit(colour, light), material)
    wood = WOODS[int(random.integers(len(WOODS)))]
    return Fence(x, z0, z1, random.uniform(1.0, 1.9), lit(wood, light), bool(random.random() < 0.5))
