"""Sky and ground: clouds, road with markings, kerbs, sidewalks, grass, and shadows that fall on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION
from dovit.training.streets.textures import Material

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


def draw_sky(canvas: Canvas, camera: Camera, random: np.random.Generator, zenith: Colour, haze: Colour) -> None:
    """A gradient from `zenith` to `haze`, clouds, and hills or trees on the horizon."""
    bands = 24
    for band in range(bands):
        top = camera.horizon * band / bands
        share = (band / bands) ** 1.5
        mixed = [z + (h - z) * share for z, h in zip(zenith, haze, strict=True)]
        box = [(0, top), (canvas.width, top), (canvas.width, canvas.height), (0, canvas.height)]
        canvas.polygon(box, (mixed[0], mixed[1], mixed[2]), SKY, Material.SKY)
    for _ in range(int(random.integers(0, 5))):
        x, y = random.uniform(0, canvas.width), random.uniform(0, 0.8) * camera.horizon
        white = random.uniform(205, 245)
        for _ in range(6):
            place = x + random.normal(0, 0.09) * canvas.height, y + random.normal(0, 0.014) * canvas.height
            radii = random.uniform(0.04, 0.12) * canvas.height, random.uniform(0.01, 0.026) * canvas.height
            canvas.ellipse(place, radii, (white, white, white + 4), SKY, Material.SKY)
    step = 0.05 * canvas.height
    green = random.uniform((60, 85, 50), (110, 130, 95))
    columns = np.arange(-step, canvas.width + 2 * step, step)
    tops = camera.horizon - canvas.height * random.uniform(0.005, 0.05) * (0.5 + random.random(len(columns)))
    ridge = [*zip(columns.tolist(), tops.tolist(), strict=True)]
    below = [(float(columns[-1]), camera.horizon + 2), (float(columns[0]), camera.horizon + 2)]
    canvas.polygon([*ridge, *below], (green[0], green[1], green[2]), VEGETATION, Material.LEAVES, z=60)


def draw_ground(canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator) -> None:
    """Grass everywhere, sidewalks and road on it, then markings and repairs on the road, and shadows on all."""
    grass = random.uniform((80, 100, 50), (130, 145, 85))
    asphalt = np.full(3, random.uniform(62, 118)) + random.uniform(-6, 6, 3)
    # sometimes hardly to be told from the road: then only its place tells
    stone = asphalt + random.choice([14, 35, 60]) + random.uniform(-8, 8, 3) + (6, 2, 0)
    everywhere = camera.flat(-200, 200, NEAR, FAR)
    behind = TERRAIN if street.verge else SIDEWALK
    canvas.polygon(everywhere, _rgb(grass if street.verge else stone), behind, Material.GRASS if street.verge else Material.PAVING)
    canvas.polygon(
        camera.flat(street.left - street.pavement, street.right + street.pavement, NEAR, FAR),
        _rgb(stone), SIDEWALK, Material.PAVING,
    )  # fmt: skip
    canvas.polygon(camera.flat(street.left, street.right, NEAR, FAR), _rgb(asphalt), ROAD, Material.ASPHALT)
    for kerb in (street.left, street.right):
        canvas.polygon(camera.flat(kerb - 0.12, kerb + 0.12, NEAR, 60), _rgb(stone + 18), SIDEWALK, Material.SMOOTH)
    for _ in range(int(random.integers(0, 4))):  # repairs
        x, z = random.uniform(street.left, street.right - 1.2), random.uniform(2.5, 25)
        patch = camera.flat(x, min(x + random.uniform(0.6, 2), street.right - 0.2), z, z * random.uniform(1.1, 1.6))
        canvas.polygon(patch, _rgb(asphalt + random.uniform(-22, 10)), ROAD, Material.ASPHALT)
    _draw_markings(canvas, camera, street, random)
    _draw_shadows(canvas, camera, street, random)


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
    if random.random() < 0.3:  # a zebra crossing
        z = random.uniform(6, 22)
        for x in np.arange(street.left + 0.3, street.right - 0.6, 1.0):
            canvas.polygon(camera.flat(x, x + 0.5, z, z + 3), colour, ROAD, Material.ASPHALT, z=z)


def _draw_shadows(canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator) -> None:
    strength = random.uniform(0, 0.5)
    side = random.choice([-1, 1])
    edge = street.house_left - 1 if side < 0 else street.house_right + 1
    polygons = []
    z = random.uniform(2, 8)
    while z < 60:
        length, reach = random.uniform(3, 15), random.uniform(1, 9)
        polygons.append(camera.flat(edge, edge - side * reach, z, z + length))
        z += length + random.uniform(1, 12)
    canvas.shade(polygons, strength)


def _rgb(values: np.ndarray) -> Colour:
    return float(values[0]), float(values[1]), float(values[2])
