"""People on foot, and the parts of a body that riders share with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas, Colour, lit
from dovit.scenes.classes import PERSON
from dovit.scenes.textures import Material


@dataclass(frozen=True)
class Clothes:
    """What a person looks like from far away."""

    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


@dataclass(frozen=True)
class Person:
    """Someone who walks or stands, `stride` metres between the feet."""

    x: float
    z: float
    tall: float
    stout: float  # width, as a share of what is usual
    stride: float
    coat_length: float  # how far the coat reaches down, as a share of the legs
    bag: bool
    clothes: Clothes

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, legs, arms, trunk, head, bag."""
        x, z, scale = self.x, self.z, camera.scale(self.z)
        canvas.ellipse(camera.at(x, 0, z), (0.34 * scale, 0.07 * scale), (40, 40, 44), None, Material.SMOOTH, z)
        hip, shoulder = 0.48 * self.tall, 0.82 * self.tall
        for side in (-1, 1):
            leg = [camera.at(x + side * 0.06, hip, z), camera.at(x + side * self.stride / 2, 0, z)]
            canvas.line(leg, 0.15 * scale, self.clothes.trousers, PERSON, Material.CLOTH, z)
            hand = camera.at(x + side * (0.2 * self.stout + self.stride / 4), hip, z)
            arm = [camera.at(x + side * 0.17 * self.stout, shoulder, z), hand]
            canvas.line(arm, 0.1 * scale, lit(self.clothes.coat, 0.85), PERSON, Material.CLOTH, z)
        draw_trunk(
            canvas, camera, (x, z), (hip * (1 - self.coat_length), shoulder), self.stout, self.clothes.coat, PERSON
        )
        draw_head(canvas, camera, (x, z), 0.92 * self.tall, self.clothes, PERSON)
        if self.bag:
            held = camera.upright(x + 0.2, x + 0.45, 0.3 * self.tall, 0.47 * self.tall, z)
            canvas.polygon(held, self.clothes.hair, PERSON, Material.CLOTH, z)


def draw_trunk(
    canvas: Canvas,
    camera: Camera,
    place: tuple[float, float],
    span: tuple[float, float],
    stout: float,
    coat: Colour,
    label: int,
) -> None:
    """The body at place (x, z) from height span[0] to span[1]."""
    x, z = place
    waist, shoulders = 0.16 * stout, 0.21 * stout
    points = [
        camera.at(x - waist, span[0], z),
        camera.at(x + waist, span[0], z),
        camera.at(x + shoulders, span[1], z),
        camera.at(x - shoulders, span[1], z),
    ]
    canvas.polygon(points, coat, label, Material.CLOTH, z)


def draw_head(
    canvas: Canvas, camera: Camera, place: tuple[float, float], y: float, clothes: Clothes, label: int
) -> None:
    """The head at place (x, z) and height y: hair, or a helmet, over a face."""
    x, z = place
    scale = camera.scale(z)
    canvas.ellipse(camera.at(x, y, z), (0.1 * scale, 0.13 * scale), clothes.hair, label, Material.SMOOTH, z)
    canvas.ellipse(camera.at(x, y - 0.04, z), (0.08 * scale, 0.09 * scale), clothes.skin, None, Material.SMOOTH, z)


def random_clothes(random: np.random.Generator) -> Clothes:
    """Any coat, dark or pale trousers."""
    skin = lit((230, 185, 155), random.uniform(0.45, 1.0))
    hair = lit((150, 120, 90), random.uniform(0.2, 1.1))
    return Clothes(_random_colour(random, 20, 220), _random_colour(random, 20, 130), skin, hair)


def random_person(random: np.random.Generator, x: float, z: float) -> Person:
    """A grown-up or a child."""
    tall = random.uniform(1.55, 1.9) if random.random() < 0.85 else random.uniform(1.0, 1.4)
    return Person(
        x,
        z,
        tall,
        random.uniform(0.7, 1.25) * tall / 1.75,
        random.uniform(0.1, 0.6),
        random.choice([0.0, 0.0, 0.25, 0.6]),
        bool(random.random() < 0.3),
        random_clothes(random),
    )


def _random_colour(random: np.random.Generator, low: float, high: float) -> Colour:
    red, green, blue = (float(v) for v in random.uniform(low, high, 3))
    return red, green, blue
