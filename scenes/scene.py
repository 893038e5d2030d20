"""Composes a street scene: places its objects at random and draws them from far to near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dovit.scenes.barriers import Barrier, random_barrier
from dovit.scenes.buildings import random_block, random_row
from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas
from dovit.scenes.crossing import random_crossing
from dovit.scenes.furniture import random_furniture
from dovit.scenes.ground import Street, draw_ground, random_street
from dovit.scenes.people import random_person
from dovit.scenes.plants import random_plant
from dovit.scenes.riders import random_two_wheeler
from dovit.scenes.shadows import draw_shadows
from dovit.scenes.sky import draw_sky
from dovit.scenes.textures import TILE, textured
from dovit.scenes.vehicles import random_vehicle
from dovit.scenes.weather import photographed, random_weather


class Thing(Protocol):
    """An object between the houses."""

    @property
    def z(self) -> float:
        """Metres from the camera."""

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Paint it over what is there."""


@dataclass(frozen=True)
class Side:
    """One side of the street: -1 left or 1 right, and the x of its kerb, of what fences its sidewalk in, of its houses."""

    sign: int
    kerb: float
    edge: float
    wall: float
    barrier: Barrier | None  # at the edge


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
    end = random.uniform(45, 80) if random.random() < 0.3 else 110.0
    block = random_block(random, end) if end < 110 else None
    sides = [_random_side(random, street, -1), _random_side(random, street, 1)]
    rows = [random_row(random, s.sign, s.wall, weather.facade_light(s.sign)) for s in sides]
    things = [thing for thing in random_things(random, street, sides) if thing.z < end - 2]
    offset = int(random.integers(TILE)), int(random.integers(TILE))

    canvas = Canvas(height, width, weather.haze, weather.sight)
    draw_sky(canvas, camera, random, weather.zenith, weather.haze)
    draw_ground(canvas, camera, street, random)
    if block is not None:
        block.draw(canvas, camera)
    # Houses are drawn first: everything else stands between the two rows, in front of them.
    for row, side in zip(rows, sides, strict=True):
        for part in row:
            if part.z0 < end:
                part.draw(canvas, camera)
        if side.barrier is not None:
            side.barrier.draw(canvas, camera)
    draw_shadows(canvas, camera, street, random, weather.sun, weather.shadow)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.draw(canvas, camera)
    image = textured(np.asarray(canvas.image, np.float32), np.asarray(canvas.materials), offset)
    return photographed(image, weather, random), np.array(canvas.labels)


def random_things(random: np.random.Generator, street: Street, sides: list[Side]) -> list[Thing]:
    """Plants, furniture at the kerbs, traffic on the lanes, people on the sidewalks."""
    things: list[Thing] = []
    busy = random.uniform(0.3, 1.0)
    green = random.uniform(0.2, 0.95)
    free = {side.sign: side.kerb for side in sides}  # where parked cars leave room to drive
    for side in sides:
        things += _random_plants(random, side, green)
        for z in _places(random, 5, 50, 8):
            if random.random() < 0.75:
                things.append(random_furniture(random, side.kerb + side.sign * random.uniform(0.3, 0.7), z))
        for z in _places(random, 5, 40, 7):
            if random.random() < busy:
                for _ in range(int(random.integers(1, 4))):
                    x = side.kerb + side.sign * random.uniform(0.5, max(0.8, street.pavement - 0.2))
                    things.append(random_person(random, x, z + random.uniform(0, 2)))
        parked = bool(random.random() < 0.6)
        if parked:
            things += _random_queue(random, side.kerb - side.sign * 1.0, side.sign > 0, 45, busy, parked=True)
            free[side.sign] = side.kerb - side.sign * 2.2
        for z in _places(random, 5, 30, 12):
            ridden = bool(random.random() < 0.7)
            if random.random() < 0.7 * busy:
                x = free[side.sign] - side.sign * random.uniform(0.4, 1.6) if ridden else side.kerb + side.sign * 0.8
                things.append(random_two_wheeler(random, x, z, ridden=ridden))
    lane = (street.right - street.left) / street.lanes
    for number in range(street.lanes):
        x = street.left + (number + 0.5) * lane
        if free[-1] < x - 1 and x + 1 < free[1]:
            things += _random_queue(random, x + random.uniform(-0.2, 0.2), x > street.left / 3, 80, 0.5 * busy)
    if random.random() < 0.2:
        things.append(random_crossing(random, random.uniform(street.left, street.right), random.uniform(12, 40)))
    for _ in range(int(random.integers(1, 4)) if random.random() < 0.25 else 0):  # people who cross
        things.append(random_person(random, random.uniform(street.left, street.right), random.uniform(8, 25)))
    return things


def _random_side(random: np.random.Generator, street: Street, sign: int) -> Side:
    kerb, wall = (street.left, street.house_left) if sign < 0 else (street.right, street.house_right)
    edge = kerb + sign * street.pavement
    fenced = street.verge > 0 and random.random() < 0.4  # front gardens
    barrier = random_barrier(random, edge, random.uniform(1.5, 8), random.uniform(12, 70)) if fenced else None
    return Side(sign, kerb, edge, wall + sign * 0.3, barrier)


def _random_plants(random: np.random.Generator, side: Side, green: float) -> list[Thing]:
    things: list[Thing] = []
    inside = abs((side.edge if side.barrier is not None else side.wall) - side.kerb) - 0.4
    for z in _places(random, 5, 60, 7):
        if random.random() < green:
            out = random.uniform(0.6, max(0.8, inside)) if random.random() < 0.6 else inside
            tree = bool(random.random() < 0.7)
            things.append(random_plant(random, side.kerb + side.sign * out, z, tree=tree))
    return things


def _random_queue(
    random: np.random.Generator, x: float, leaving: bool, far: float, busy: float, *, parked: bool = False
) -> list[Thing]:
    """Vehicles one behind the other, none inside the next."""
    queue: list[Thing] = []
    z = random.uniform(3.5, 9) if parked else random.uniform(6, 24)
    while z < far:
        vehicle = random_vehicle(random, x, z, leaving=leaving, parked=parked)
        if random.random() < busy:
            queue.append(vehicle)
        z += vehicle.length + (random.uniform(0.6, 3) if parked else random.uniform(3, 20))
    return queue


def _places(random: np.random.Generator, near: float, far: float, gap: float) -> list[float]:
    """Distances from near to far, `gap` metres apart on average."""
    places = []
    z = near + random.exponential(gap / 2)
    while z < far:
        places.append(float(z))
        z += gap * random.uniform(0.4, 1.6)
    return places
