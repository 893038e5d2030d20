"""A street scene: what there is, painted from far to near."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dovit.training.streets.buildings import random_houses
from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas
from dovit.training.streets.furniture import random_furniture
from dovit.training.streets.ground import Street, draw_ground, draw_sky, random_street
from dovit.training.streets.people import random_person, random_rider
from dovit.training.streets.plants import random_plant
from dovit.training.streets.textures import TILE, textured
from dovit.training.streets.vehicles import random_vehicle
from dovit.training.streets.weather import photographed, random_weather


class Thing(Protocol):
    """Whatever stands on the street."""

    @property
    def z(self) -> float:
        """Metres from the camera."""

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Paint it over what is there."""


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3] RGB and its labels uint8 [H, W], Cityscapes train ids without 255.

    A seed always gives the same scene, and at another size the same street seen by a camera of another resolution.
    """
    random = np.random.default_rng(seed)
    weather = random_weather(random)
    camera = Camera(
        horizon=height * random.uniform(0.4, 0.55),
        centre=width * random.uniform(0.35, 0.65),
        focal=height * random.uniform(0.9, 1.3),
        height=random.uniform(1.2, 1.7),
    )
    street = random_street(random)
    things = random_things(random, street)
    offset = int(random.integers(TILE)), int(random.integers(TILE))

    canvas = Canvas(height, width, weather.haze, weather.sight)
    draw_sky(canvas, camera, random, weather.zenith, weather.haze)
    draw_ground(canvas, camera, street, random)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.draw(canvas, camera)
    image = textured(np.asarray(canvas.image, np.float32), np.asarray(canvas.materials), offset)
    return photographed(image, weather, random), np.array(canvas.labels)


def random_things(random: np.random.Generator, street: Street) -> list[Thing]:
    """Houses, plants, furniture at the kerbs, traffic on the lanes, people on the sidewalks."""
    things: list[Thing] = [
        *random_houses(random, -1, street.house_left - 0.3),
        *random_houses(random, 1, street.house_right + 0.3),
    ]
    lane = (street.right - street.left) / street.lanes
    busy = random.uniform(0.3, 1.0)
    for side, kerb, wall in ((-1, street.left, street.house_left), (1, street.right, street.house_right)):
        for z in _places(random, 5, 60, 9):  # trees
            if random.random() < 0.55:
                x = kerb + side * random.uniform(0.6, abs(wall - kerb)) if random.random() < 0.7 else wall
                things.append(random_plant(random, float(x), z, tree=bool(random.random() < 0.75)))
        for z in _places(random, 5, 50, 8):
            if random.random() < 0.75:
                things.append(random_furniture(random, kerb + side * random.uniform(0.3, 0.7), z))
        for z in _places(random, 5, 40, 7):
            if random.random() < busy:
                for _ in range(int(random.integers(1, 4))):
                    x = kerb + side * random.uniform(0.5, max(0.8, street.pavement - 0.2))
                    things.append(random_person(random, x, z + random.uniform(0, 2)))
        if random.random() < 0.6:  # parked cars
            for z in _places(random, 4, 45, 8):
                if random.random() < busy:
                    things.append(random_vehicle(random, kerb - side * 1.0, z, leaving=side > 0))
        for z in _places(random, 5, 30, 14):
            if random.random() < 0.55 * busy:
                things.append(random_rider(random, kerb - side * random.uniform(0.5, 2.2), z))
    for number in range(street.lanes):
        x = street.left + (number + 0.5) * lane
        for z in _places(random, 6, 80, 18):
            if random.random() < 0.5 * busy:
                things.append(random_vehicle(random, x + random.uniform(-0.3, 0.3), z, leaving=x > street.left / 3))
    return things


def _places(random: np.random.Generator, near: float, far: float, gap: float) -> list[float]:
    """Distances from near to far, `gap` metres apart on average."""
    places = []
    z = near + random.exponential(gap / 2)
    while z < far:
        places.append(float(z))
        z += gap * random.uniform(0.4, 1.6)
    return places
