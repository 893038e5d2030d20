"""Objects along a kerb: street lamps, traffic lights, traffic signs, bollards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera, Point
from dovit.scenes.canvas import Canvas, Colour
from dovit.scenes.classes import LIGHT, POLE, SIGN
from dovit.scenes.textures import Material

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
class Bollard:
    """A low post that keeps cars from the sidewalk."""

    x: float
    z: float
    grey: float

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """A post with a bright ring."""
        post = camera.upright(self.x - 0.08, self.x + 0.08, 0, 0.95, self.z)
        canvas.polygon(post, (self.grey, self.grey, self.grey), POLE, Material.SMOOTH, self.z)
        ring = camera.upright(self.x - 0.08, self.x + 0.08, 0.72, 0.84, self.z)
        canvas.polygon(ring, (215, 215, 215), None, Material.SMOOTH, self.z)


@dataclass(frozen=True)
class TrafficLight:
    """Three lamps in a dark case, on a pole or hung over the road from one."""

    x: float
    z: float
    lit: int
    arm: float  # metres to the second case, with its direction; 0: only the case on the pole

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Pole, arm, cases."""
        width = 0.13 * camera.scale(self.z)
        grey: Colour = (96, 98, 100)
        foot = camera.at(self.x, 0, self.z)
        if self.arm:
            top, end = camera.at(self.x, 5.6, self.z), camera.at(self.x + self.arm, 5.8, self.z)
            canvas.line([foot, top, end], width, grey, POLE, Material.SMOOTH, self.z)
            self._draw_case(canvas, camera, self.x + self.arm, 4.9)
        else:
            canvas.line([foot, camera.at(self.x, 2.5, self.z)], width, grey, POLE, Material.SMOOTH, self.z)
        self._draw_case(canvas, camera, self.x, 2.4)

    def _draw_case(self, canvas: Canvas, camera: Camera, x: float, y: float) -> None:
        case = camera.upright(x - 0.22, x + 0.22, y, y + 1.1, self.z)
        canvas.polygon(case, (28, 30, 30), LIGHT, Material.SMOOTH, self.z)
        radius = 0.13 * camera.scale(self.z)
        for number, colour in enumerate(LAMPS):
            bright = colour if number == self.lit else (50.0, 48.0, 46.0)
            centre = camera.at(x, y + 0.88 - 0.33 * number, self.z)
            canvas.ellipse(centre, (radius, radius), bright, None, Material.SMOOTH)


@dataclass(frozen=True)
class TrafficSign:
    """A round, square or triangular plate on a pole."""

    x: float
    z: float
    y: float  # of the middle of the plate
    shape: int
    colours: tuple[Colour, Colour]
    size: float

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Pole, plate, and what is painted on it."""
        scale = camera.scale(self.z)
        pole = [camera.at(self.x, 0, self.z), camera.at(self.x, self.y, self.z)]
        canvas.line(pole, 0.09 * scale, (120, 122, 124), POLE, Material.SMOOTH, self.z)
        for colour, share, label in ((self.colours[0], 1.0, SIGN), (self.colours[1], 0.6, None)):
            if self.shape == 0:
                radius = share * self.size * scale
                centre = camera.at(self.x, self.y, self.z)
                canvas.ellipse(centre, (radius, radius), colour, label, Material.SMOOTH, self.z)
            else:
                canvas.polygon(self._outline(camera, share * self.size), colour, label, Material.SMOOTH, self.z)

    def _outline(self, camera: Camera, half: float) -> list[Point]:
        square = camera.upright(self.x - half, self.x + half, self.y - half, self.y + half, self.z)
        return square if self.shape == 1 else [square[0], square[1], camera.at(self.x, self.y + half, self.z)]


Furniture = Lamp | Bollard | TrafficLight | TrafficSign


def random_furniture(random: np.random.Generator, x: float, z: float) -> Furniture:
    """One thing at the kerb."""
    kind = random.choice(4, p=[0.32, 0.1, 0.24, 0.34])
    inward = -float(np.sign(x))
    if kind == 0:
        return Lamp(x, z, random.uniform(4.5, 8), inward * random.uniform(0, 2), random.uniform(50, 150))
    if kind == 1:
        return Bollard(x, z, random.uniform(40, 120))
    if kind == 2:
        arm = inward * random.uniform(2, 3.5) if random.random() < 0.3 else 0.0
        return TrafficLight(x, z, int(random.integers(3)), arm)
    colours = SIGNS[int(random.integers(len(SIGNS)))]
    return TrafficSign(x, z, random.uniform(2.0, 2.6), int(random.integers(3)), colours, random.uniform(0.3, 0.5))
