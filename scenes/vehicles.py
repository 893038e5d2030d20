"""Cars, trucks, buses and trams along the street: boxes with windows, wheels and lights, in perspective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera, Point
from dovit.scenes.canvas import Canvas, Colour, lit
from dovit.scenes.classes import BUS, CAR, TRAIN, TRUCK
from dovit.scenes.textures import Material

PAINTS: tuple[Colour, ...] = (
    (28, 28, 32),
    (70, 72, 76),
    (110, 108, 106),
    (150, 152, 156),
    (225, 226, 228),
    (140, 24, 28),
    (24, 48, 110),
    (120, 110, 90),
    (30, 80, 60),
)
GLASS: Colour = (42, 48, 56)
TYRE: Colour = (21, 21, 23)


@dataclass(frozen=True)
class Vehicle:
    """Seen from its back or its front, with the side that the camera sees. Metres; x is the middle."""

    x: float
    z: float  # of the nearer end
    width: float
    height: float
    length: float
    clearance: float
    cabin: float  # share of the height where the windows begin
    bonnet: float  # from the nearer end to the cabin
    slope: float  # that the cabin's ends lean inwards over its height
    paint: Colour
    label: int
    leaving: bool  # whether we see its back

    @property
    def waist(self) -> float:
        """Metres above the ground where the windows begin."""
        return self.clearance + self.cabin * (self.height - self.clearance)

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, side, then the end that faces us."""
        half, z = self.width / 2, self.z
        shadow = camera.flat(self.x - half - 0.15, self.x + half + 0.15, z - 0.25, z + self.length)
        canvas.polygon(shadow, (22, 22, 26), None, Material.ASPHALT, z)
        self._draw_side(canvas, camera)
        self._draw_end(canvas, camera)
        self._draw_lamps(canvas, camera)

    def _draw_side(self, canvas: Canvas, camera: Camera) -> None:
        x = self.x + self.width / 2 if self.x < 0 else self.x - self.width / 2
        z, far, slope, waist, top = self.z, self.z + self.length, self.slope, self.waist, self.height
        outline = [
            camera.at(x, self.clearance, z),
            camera.at(x, self.clearance, far),
            camera.at(x, waist, far),
            camera.at(x, top, far - slope),
            camera.at(x, top, z + self.bonnet + slope),
            camera.at(x, waist, z + self.bonnet),
            camera.at(x, waist, z),
        ]
        canvas.polygon(outline, lit(self.paint, 0.72), self.label, Material.SMOOTH, z)
        if self.label != TRUCK:
            front, back = z + self.bonnet + 0.6 * slope + 0.3, far - 0.6 * slope - 0.3
            pane = [
                camera.at(x, waist + 0.04, front),
                camera.at(x, waist + 0.04, back),
                camera.at(x, top - 0.12, back - 0.4 * slope),
                camera.at(x, top - 0.12, front + 0.4 * slope),
            ]
            canvas.polygon(pane, GLASS, None, Material.SMOOTH, z)
            for share in np.arange(1, max(2, self.length // 1.6)) / max(2, self.length // 1.6):  # pillars
                at = front + share * (back - front)
                pillar = camera.along(x, waist, top - 0.1, at - 0.06, at + 0.06)
                canvas.polygon(pillar, lit(self.paint, 0.72), None, Material.SMOOTH, z)
        for place in (z + 0.17 * self.length, z + 0.8 * self.length):
            self._draw_wheel(canvas, camera, x, place)

    def _draw_wheel(self, canvas: Canvas, camera: Camera, x: float, z: float) -> None:
        size = 0.33 if self.label == CAR else 0.5
        for radius, colour, label in ((size, TYRE, self.label), (0.55 * size, (120.0, 120.0, 124.0), None)):
            rim = [
                camera.at(x, size + radius * float(np.sin(t)), z + radius * float(np.cos(t)))
                for t in np.linspace(0, 2 * np.pi, 10, endpoint=False)
            ]
            canvas.polygon(rim, colour, label, Material.SMOOTH, z)

    def _draw_end(self, canvas: Canvas, camera: Camera) -> None:
        half, z, waist = self.width / 2, self.z, self.waist
        for side in (-1, 1):  # tyres under the body
            x = self.x + side * (half - 0.18)
            tyre = camera.upright(x - 0.12, x + 0.12, 0, self.clearance + 0.1, z)
            canvas.polygon(tyre, TYRE, self.label, Material.SMOOTH, z)
        cabin, back = z + self.bonnet, z + self.bonnet + self.slope
        roof = 0.82 * half if self.label == CAR else half
        upper = self._trapezium(camera, (half, waist, cabin), (roof, self.height, back))
        canvas.polygon(upper, self.paint, self.label, Material.SMOOTH, z)
        edge = 1 if self.x < 0 else -1  # of the side that is seen
        pillar = [
            camera.at(self.x + edge * half, waist, cabin),
            camera.at(self.x + edge * half, self.height, back),
            camera.at(self.x + edge * roof, self.height, back),
        ]
        canvas.polygon(pillar, self.paint, self.label, Material.SMOOTH, z)
        if self.label != TRUCK or not self.leaving:
            pane = self._trapezium(camera, (0.88 * half, waist + 0.04, cabin), (0.86 * roof, self.height - 0.1, back))
            canvas.polygon(pane, GLASS, None, Material.SMOOTH, z)
        if self.bonnet:
            lid = camera.flat(self.x - half, self.x + half, z, cabin, waist)
            canvas.polygon(lid, lit(self.paint, 1.1), self.label, Material.SMOOTH, z)
        body = camera.upright(self.x - half, self.x + half, self.clearance, waist, z)
        canvas.polygon(body, self.paint, self.label, Material.SMOOTH, z)
        bumper = camera.upright(self.x - half, self.x + half, self.clearance, self.clearance + 0.14, z)
        canvas.polygon(bumper, lit(self.paint, 0.5), None, Material.SMOOTH, z)

    def _trapezium(
        self, camera: Camera, low: tuple[float, float, float], high: tuple[float, float, float]
    ) -> list[Point]:
        """Between two level edges about x, each (half its length, height, distance)."""
        return [
            camera.at(self.x - low[0], low[1], low[2]),
            camera.at(self.x + low[0], low[1], low[2]),
            camera.at(self.x + high[0], high[1], high[2]),
            camera.at(self.x - high[0], high[1], high[2]),
        ]

    def _draw_lamps(self, canvas: Canvas, camera: Camera) -> None:
        half, body = self.width / 2, self.waist - self.clearance
        lamp: Colour = (200, 26, 24) if self.leaving else (245, 240, 210)
        for side in (-1, 1):
            x, y = self.x + side * 0.8 * half, self.clearance + 0.6 * body
            lens = camera.upright(x - 0.14, x + 0.14, y - 0.08, y + 0.08, self.z)
            canvas.polygon(lens, lamp, None, Material.SMOOTH, self.z)
        y = self.clearance + 0.35 * body
        plate = camera.upright(self.x - 0.25, self.x + 0.25, y - 0.06, y + 0.06, self.z)
        canvas.polygon(plate, (220, 220, 210), None, Material.SMOOTH, self.z)


def random_vehicle(random: np.random.Generator, x: float, z: float, *, leaving: bool, parked: bool = False) -> Vehicle:
    """Mostly a car; neither buses nor trams park."""
    kind = random.choice([CAR, TRUCK, BUS, TRAIN], p=[0.94, 0.06, 0, 0] if parked else [0.76, 0.1, 0.1, 0.04])
    colour = random_paint(random)
    if kind == CAR:
        return _random_car(random, x, z, colour, leaving)
    if kind == TRUCK:
        size = random.uniform(2.1, 2.4), random.uniform(2.5, 3.3), random.uniform(5.5, 8)
        return Vehicle(x, z, *size, 0.5, 0.45, 0, 0, colour, TRUCK, leaving)
    if kind == BUS:
        size = 2.4, random.uniform(2.8, 3.2), random.uniform(9, 12)
        return Vehicle(x, z, *size, 0.35, 0.38, 0, 0, colour, BUS, leaving)
    size = 2.4, random.uniform(3.2, 3.6), random.uniform(16, 26)
    return Vehicle(x, z, *size, 0.25, 0.4, 0, 0.3, colour, TRAIN, leaving)


def random_paint(random: np.random.Generator) -> Colour:
    """The grey of roads and houses more often than red, blue or green."""
    return lit(PAINTS[int(random.integers(len(PAINTS)))], random.uniform(0.8, 1.15))


def _random_car(random: np.random.Generator, x: float, z: float, paint: Colour, leaving: bool) -> Vehicle:
    shape = random.choice(3, p=[0.4, 0.4, 0.2])
    width = random.uniform(1.65, 1.9)
    if shape == 0:  # hatchback
        length, height = random.uniform(3.6, 4.3), random.uniform(1.4, 1.55)
        return Vehicle(x, z, width, height, length, 0.2, 0.52, 0 if leaving else 0.8, 0.5, paint, CAR, leaving)
    if shape == 1:  # saloon
        length, height = random.uniform(4.3, 4.9), random.uniform(1.35, 1.45)
        return Vehicle(x, z, width, height, length, 0.2, 0.55, 0.6 if leaving else 1.0, 0.7, paint, CAR, leaving)
    length, height = random.uniform(4.4, 5.0), random.uniform(1.7, 2.0)  # van
    return Vehicle(x, z, width, height, length, 0.25, 0.5, 0 if leaving else 0.5, 0.25, paint, CAR, leaving)
