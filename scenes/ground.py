"""The ground: road with markings, kerbs, sidewalks, grass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas, Colour
from dovit.scenes.classes import ROAD, SIDEWALK, TERRAIN
from dovit.scenes.textures import Material

NEAR, FAR = 1.2, 400.0  # metres


@dataclass(frozen=True)
class Street:
    """The street's cross-section in metres; the camera is at x = 0."""

    left: float  # kerb
    right: float
    pavement: float  # width of each sidewalk
    verge: float  # width of the grass behind it, possibly 0
    lanes: int

    @property
    def house_left(self) -> float:
        """Where the houses of the left side stand."""
        return self.left - self.pavement - self.verge

    @property
    def house_right(self) -> float:
        """Where the houses of the right side stand."""
        return self.right + self.pavement + self.verge


def random_street(random: np.random.Generator) -> Street:
    """Two to four lanes; the camera drives in one on the right."""
    lanes = int(random.integers(2, 5))
    width = lanes * random.uniform(2.8, 3.6)
    right = random.uniform(0.25, 0.45) * width
    verge = float(random.choice([0.0, 0.0, 1.5, 4.0]))
    return Street(right - width, right, random.uniform(1.6, 4.0), verge, lanes)


def draw_ground(canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator) -> None:
    """Grass or stone everywhere, sidewalks and road on it, then repairs and markings on the road."""
    grass = random.uniform((80, 100, 50), (130, 145, 85))
    asphalt = np.full(3, random.uniform(62, 118)) + random.uniform(-6, 6, 3)
    # sometimes of nearly the road's colour, so that only its place tells them apart
    stone = asphalt + random.choice([14, 35, 60]) + random.uniform(-8, 8, 3) + (6, 2, 0)
    everywhere = camera.flat(-200, 200, NEAR, FAR)
    if street.verge:
        canvas.polygon(everywhere, _rgb(grass), TERRAIN, Material.GRASS)
    else:
        canvas.polygon(everywhere, _rgb(stone), SIDEWALK, Material.PAVING)
    pavements = camera.flat(street.left - street.pavement, street.right + street.pavement, NEAR, FAR)
    canvas.polygon(pavements, _rgb(stone), SIDEWALK, Material.PAVING)
    canvas.polygon(camera.flat(street.left, street.right, NEAR, FAR), _rgb(asphalt), ROAD, Material.ASPHALT)
    for kerb in (street.left, street.right):
        canvas.polygon(camera.flat(kerb - 0.12, kerb + 0.12, NEAR, 60), _rgb(stone + 18), SIDEWALK, Material.SMOOTH)
    _draw_wear(canvas, camera, street, random, asphalt)
    _draw_markings(canvas, camera, street, random)


def _draw_wear(
    canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator, asphalt: np.ndarray
) -> None:
    if random.random() < 0.2:  # a red lane for bicycles
        inside = street.right - random.uniform(1.2, 1.6)
        red = asphalt + random.uniform((30, -6, -10), (60, 4, 0))
        canvas.polygon(camera.flat(inside, street.right - 0.12, NEAR, 150), _rgb(red), ROAD, Material.ASPHALT)
    lane = (street.right - street.left) / street.lanes
    dark = asphalt - random.uniform(2, 9)
    for middle in street.left + lane * (np.arange(street.lanes) + 0.5):  # where tyres roll
        for x in (middle - 0.75, middle + 0.75):
            canvas.polygon(camera.flat(x - 0.25, x + 0.25, NEAR, 120), _rgb(dark), ROAD, Material.ASPHALT)
    for _ in range(int(random.integers(0, 4))):  # repairs
        x, z = random.uniform(street.left, street.right - 1.2), random.uniform(2.5, 25)
        patch = camera.flat(x, min(x + random.uniform(0.6, 2), street.right - 0.2), z, z * random.uniform(1.1, 1.6))
        canvas.polygon(patch, _rgb(asphalt + random.uniform(-22, 10)), ROAD, Material.ASPHALT)
    for _ in range(int(random.integers(0, 3))):  # manhole covers
        x, z = random.uniform(street.left + 1, street.right - 1), random.uniform(4, 20)
        radii = 0.35 * camera.scale(z), 0.35 * camera.scale(z) * camera.height / z
        canvas.ellipse(camera.at(x, 0, z), radii, _rgb(asphalt * 0.6), ROAD, Material.SMOOTH)


def _draw_markings(canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator) -> None:
    white = random.uniform(170, 240)
    colour = (white, white, white - random.choice([4, 40]))
    lane = (street.right - street.left) / street.lanes
    start, dash = random.uniform(0, 6), random.uniform(2, 4)
    for number in range(1, street.lanes):
        x = street.left + number * lane
        for z in np.arange(NEAR + start, 90, 2.5 * dash):
            canvas.polygon(camera.flat(x - 0.07, x + 0.07, z, z + dash), colour, ROAD, Material.ASPHALT, z=z)
    if random.random() < 0.5:
        for x in (street.left + 0.35, street.right - 0.35):
            canvas.polygon(camera.flat(x - 0.06, x + 0.06, NEAR, 120), colour, ROAD, Material.ASPHALT)
    if random.random() < 0.3:  # a zebra crossing, and the line to stop at before it
        z = random.uniform(6, 22)
        for x in np.arange(street.left + 0.3, street.right - 0.6, 1.0):
            canvas.polygon(camera.flat(x, x + 0.5, z, z + 3), colour, ROAD, Material.ASPHALT, z=z)
        middle = street.left + street.lanes // 2 * lane
        stop = camera.flat(middle + 0.1, street.right - 0.2, z - 1.5, z - 1.1)
        canvas.polygon(stop, colour, ROAD, Material.ASPHALT, z=z)


def _rgb(values: np.ndarray) -> Colour:
    return float(values[0]), float(values[1]), float(values[2])
