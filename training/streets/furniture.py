"""What stands along a kerb: street lamps, traffic lights, traffic signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import LIGHT, POLE, SIGN
from dovit.training.streets.textures import Material

LAMPS: tuple[Colour, ...] = ((235, 50, 40), (240, 190, 40), (60, 220, 120))
SIGNS: tuple[tuple[Colour, Colour], ...] = (
    ((205, 40, 45), (240, 240, 240)),
    ((35, 75, 175), (235, 240, 245)),
    ((238, 200, 40), (40, 40, 40)),
    ((240, 240, 240), (190, 40, 40)),
)


@dataclass(frozen=True)
class Lamp:
    """A street lamp, its arm over the road."""

    x: float
    z: float
    height: float
    arm: float  # metres, with its direction
    grey: float

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """All of it is pole, as in Cityscapes."""
        colour = (self.grey, self.grey, self.grey + 3)
        width = 0.16 * camera.scale(self.z)
        foot, top = camera.at(self.x, 0, self.z), camera.at(self.x, self.height, self.z)
        end = camera.at(self.x + self.arm, self.height + 0.3, self.z)
        canvas.line([foot, top], width, colour, POLE, Material.SMOOTH, self.z)
        canvas.line([top, end], 0.7 * width, colour, POLE, Material.SMOOTH, self.z)


@dataclass(frozen=True)
class TrafficLight:
    """Three lamps in a dark case on a pole."""

    x: float
    z: float
    lit: int

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Pole, case, lamps."""
        width = 0.12 * camera.scale(self.z)
        pole = [camera.at(self.x, 0, self.z), camera.at(self.x, 2.5, self.z)]
        canvas.line(pole, width, (96, 98, 100), POLE, Material.SMOOTH, self.z)
        case = camera.upright(self.x - 0.22, self.x + 0.22, 2.4, 3.5, self.z)
        canvas.polygon(case, (28, 30, 30), LIGHT, Material.SMOOTH, self.z)
        radius = 0.13 * camera.scale(self.z)
        for number, colour in enumerate(LAMPS):
            bright = colour if number == self.lit else (50.0, 48.0, 46.0)
            centre = camera.at(self.x, 3.28 - 0.33 * number, self.z)
            canvas.ellipse(centre, (radius, radius), bright, None, Material.SMOOTH)


@dataclass(frozen=True)
class TrafficSign:
    """A round, square or triangular plate on a pole."""

    x: float
    z: float
    shape: int
    colours: tuple[Colour, Colour]
    size: float

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Pole, plate, and what is painted on it."""
        scale, y = camera.scale(self.z), 2.3
        pole = [camera.at(self.x, 0, self.z), camera.at(self.x, y, self.z)]
        canvas.line(pole, 0.09 * scale, (120, 122, 124), POLE, Material.SMOOTH, self.z)
        outer, inner = self.colours
        for colour, share, label in ((outer, 1.0, SIGN), (inner, 0.6, None)):
            half = share * self.size
            if self.shape == 0:
                radii = half * scale, half * scale
                canvas.ellipse(camera.at(self.x, y, self.z), radii, colour, label, Material.SMOOTH, self.z)
                continue
            points = camera.upright(self.x - half, self.x + half, y - half, y + half, self.z)
            if self.shape == 2:
                points = [points[0], points[1], camera.at(self.x, y + half, self.z)]
            canvas.polygon(points, colour, label, Material.SMOOTH, self.z)


def random_furniture(random: np.random.Generator, x: float, z: float) -> Lamp | TrafficLight | TrafficSign:
    """One thing at the kerb."""
    kind = random.choice(3, p=[0.36, 0.27, 0.37])
    if kind == 0:
        arm = -np.sign(x) * random.uniform(0, 2)
        return Lamp(x, z, random.uniform(4.5, 8), float(arm), random.uniform(50, 150))
    if kind == 1:
        return TrafficLight(x, z, int(random.integers(3)))
    colours = SIGNS[int(random.integers(len(SIGNS)))]
    return TrafficSign(x, z, int(random.integers(3)), colours, random.uniform(0.3, 0.5))
