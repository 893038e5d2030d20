"""People on foot, and riders on bicycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import BICYCLE, PERSON, RIDER
from dovit.training.streets.textures import Material


@dataclass(frozen=True)
class Person:
    """Someone who walks, `stride` metres between the feet."""

    x: float
    z: float
    tall: float
    stride: float
    coat: Colour
    trousers: Colour
    skin: Colour

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, legs, arms, trunk, head."""
        scale = camera.scale(self.z)
        canvas.ellipse(camera.at(self.x, 0, self.z), (0.3 * scale, 0.06 * scale), (40, 40, 44), None, Material.SMOOTH)
        hip, shoulder = 0.48 * self.tall, 0.82 * self.tall
        for side in (-1, 1):
            leg = [camera.at(self.x + side * 0.06, hip, self.z), camera.at(self.x + side * self.stride / 2, 0, self.z)]
            canvas.line(leg, 0.15 * scale, self.trousers, PERSON, Material.CLOTH, self.z)
            arm = [camera.at(self.x + side * 0.17, shoulder, self.z), camera.at(self.x + side * (0.2 + self.stride / 4), hip, self.z)]
            canvas.line(arm, 0.1 * scale, self.coat, PERSON, Material.CLOTH, self.z)
        _trunk(canvas, camera, (self.x, self.z), (hip, shoulder), self.coat, PERSON)
        _head(canvas, camera, (self.x, self.z), 0.92 * self.tall, self.skin, PERSON)


@dataclass(frozen=True)
class Rider:
    """Someone on a bicycle, seen from the side or from behind."""

    x: float
    z: float
    coat: Colour
    trousers: Colour
    skin: Colour
    frame: Colour
    aside: bool

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """The bicycle, then who rides it."""
        scale = camera.scale(self.z)
        reach = 0.52 if self.aside else 0.0
        for side in (-1, 1):
            centre = camera.at(self.x + side * reach, 0.34, self.z)
            if self.aside:
                _ring(canvas, centre, 0.34 * scale, 0.06 * scale, self.z)
            else:
                radii = max(0.05 * scale, 0.6), 0.34 * scale
                canvas.ellipse(centre, radii, (24, 24, 26), BICYCLE, Material.SMOOTH, self.z)
        seat, bar = camera.at(self.x - 0.3 * reach, 0.95, self.z), camera.at(self.x + 0.8 * reach, 1.0, self.z)
        crank = camera.at(self.x, 0.34, self.z)
        for end in (seat, bar):
            canvas.line([crank, end], 0.06 * scale, self.frame, BICYCLE, Material.SMOOTH, self.z)
        if not self.aside:
            ends = [camera.at(self.x - 0.28, 1.0, self.z), camera.at(self.x + 0.28, 1.0, self.z)]
            canvas.line(ends, 0.06 * scale, self.frame, BICYCLE, Material.SMOOTH, self.z)
        for side in (-1, 1):
            leg = [camera.at(self.x - 0.3 * reach + 0.08 * side, 0.98, self.z), camera.at(self.x + 0.1 * side, 0.4, self.z)]
            canvas.line(leg, 0.15 * scale, self.trousers, RIDER, Material.CLOTH, self.z)
        _trunk(canvas, camera, (self.x, self.z), (0.95, 1.5), self.coat, RIDER)
        _head(canvas, camera, (self.x + 0.2 * reach, self.z), 1.68, self.skin, RIDER)


def _ring(canvas: Canvas, centre: tuple[float, float], radius: float, width: float, z: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 15)
    points = [(centre[0] + radius * float(np.cos(t)), centre[1] + radius * float(np.sin(t))) for t in angles]
    canvas.line(points, width, (24, 24, 26), BICYCLE, Material.SMOOTH, z)


def _trunk(
    canvas: Canvas, camera: Camera, place: tuple[float, float], span: tuple[float, float], coat: Colour, label: int
) -> None:
    x, z = place
    points = [
        camera.at(x - 0.16, span[0], z), camera.at(x + 0.16, span[0], z),
        camera.at(x + 0.21, span[1], z), camera.at(x - 0.21, span[1], z),
    ]  # fmt: skip
    canvas.polygon(points, coat, label, Material.CLOTH, z)


def _head(canvas: Canvas, camera: Camera, place: tuple[float, float], y: float, skin: Colour, label: int) -> None:
    scale = camera.scale(place[1])
    canvas.ellipse(camera.at(place[0], y, place[1]), (0.1 * scale, 0.13 * scale), skin, label, Material.SMOOTH, place[1])


def _random_colour(random: np.random.Generator, low: float, high: float) -> Colour:
    red, green, blue = (float(v) for v in random.uniform(low, high, 3))
    return red, green, blue


def random_person(random: np.random.Generator, x: float, z: float) -> Person:
    """A grown-up or a child."""
    tall = random.uniform(1.55, 1.9) if random.random() < 0.85 else random.uniform(1.0, 1.4)
    shade = random.uniform(0.45, 1.0)
    skin = (230 * shade, 185 * shade, 155 * shade)
    coat, trousers = _random_colour(random, 20, 220), _random_colour(random, 20, 110)
    return Person(x, z, tall, random.uniform(0.1, 0.6), coat, trousers, skin)


def random_rider(random: np.random.Generator, x: float, z: float) -> Rider:
    """A grown-up on a bicycle."""
    shade = random.uniform(0.45, 1.0)
    skin = (230 * shade, 185 * shade, 155 * shade)
    return Rider(
        x, z, _random_colour(random, 20, 220), _random_colour(random, 20, 110), skin,
        _random_colour(random, 20, 200), bool(random.random() < 0.5),
    )  # fmt: skip
