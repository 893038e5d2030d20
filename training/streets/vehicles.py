"""Cars, trucks and buses: boxes with windows, wheels and lights, in perspective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.training.streets.camera import Camera, Point
from dovit.training.streets.canvas import Canvas, Colour
from dovit.training.streets.classes import BUS, CAR, TRUCK
from dovit.training.streets.textures import Material

PAINTS: tuple[Colour, ...] = (
    (28, 28, 32), (70, 72, 76), (150, 152, 156), (225, 226, 228), (140, 24, 28), (24, 48, 110), (120, 110, 90), (30, 80, 60),
)  # fmt: skip


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
    paint: Colour
    label: int
    leaving: bool  # whether we see its back

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, side, end, windows, lights, wheels."""
        half, z, far = self.width / 2, self.z, self.z + self.length
        shadow = camera.flat(self.x - half - 0.15, self.x + half + 0.15, z - 0.25, far)
        canvas.polygon(shadow, (22, 22, 26), None, Material.ASPHALT, z)
        seen = self.x + half if self.x < 0 else self.x - half
        waist = self.clearance + self.cabin * (self.height - self.clearance)
        dark = (self.paint[0] * 0.72, self.paint[1] * 0.72, self.paint[2] * 0.74)
        slope = 0.18 * self.length if self.label == CAR else 0.0
        side = [
            camera.at(seen, self.clearance, z), camera.at(seen, self.clearance, far), camera.at(seen, waist, far),
            camera.at(seen, self.height, far - slope), camera.at(seen, self.height, z + slope), camera.at(seen, waist, z),
        ]  # fmt: skip
        canvas.polygon(side, dark, self.label, Material.SMOOTH, z)
        glass = [
            camera.at(seen, waist, z + 0.6 * slope + 0.3), camera.at(seen, waist, far - 0.6 * slope - 0.3),
            camera.at(seen, self.height - 0.12, far - slope - 0.1), camera.at(seen, self.height - 0.12, z + slope + 0.1),
        ]  # fmt: skip
        canvas.polygon(glass, (46, 52, 58), None, Material.SMOOTH, z)
        for place in (z + 0.17 * self.length, z + 0.8 * self.length):
            self._wheel(canvas, camera, seen, place)
        self._end(canvas, camera, waist, slope)

    def _end(self, canvas: Canvas, camera: Camera, waist: float, slope: float) -> None:
        half, z = self.width / 2, self.z
        for side in (-1, 1):  # tyres under the body
            x = self.x + side * (half - 0.18)
            tyre = camera.upright(x - 0.12, x + 0.12, 0, self.clearance + 0.1, z)
            canvas.polygon(tyre, (20, 20, 22), self.label, Material.SMOOTH, z)
        body = camera.upright(self.x - half, self.x + half, self.clearance, waist, z)
        canvas.polygon(body, self.paint, self.label, Material.SMOOTH, z)
        roof = 0.82 * half if self.label == CAR else half
        upper: list[Point] = [
            camera.at(self.x - half, waist, z), camera.at(self.x + half, waist, z),
            camera.at(self.x + roof, self.height, z + slope), camera.at(self.x - roof, self.height, z + slope),
        ]  # fmt: skip
        canvas.polygon(upper, self.paint, self.label, Material.SMOOTH, z)
        edge = half if self.x < 0 else -half  # of the side that is seen
        pillar = [
            camera.at(self.x + edge, waist, z), camera.at(self.x + edge, self.height, z + slope),
            camera.at(self.x + edge * roof / half, self.height, z + slope),
        ]  # fmt: skip
        canvas.polygon(pillar, self.paint, self.label, Material.SMOOTH, z)
        pane = [
            camera.at(self.x - 0.88 * half, waist + 0.04, z), camera.at(self.x + 0.88 * half, waist + 0.04, z),
            camera.at(self.x + 0.86 * roof, self.height - 0.1, z + slope),
            camera.at(self.x - 0.86 * roof, self.height - 0.1, z + slope),
        ]  # fmt: skip
        if self.label != TRUCK or not self.leaving:
            canvas.polygon(pane, (40, 46, 54), None, Material.SMOOTH, z)
        lamp: Colour = (200, 26, 24) if self.leaving else (245, 240, 210)
        for side in (-1, 1):
            x = self.x + side * 0.8 * half
            y = self.clearance + 0.6 * (waist - self.clearance)
            canvas.polygon(camera.upright(x - 0.14, x + 0.14, y - 0.08, y + 0.08, z), lamp, None, Material.SMOOTH, z)
        y = self.clearance + 0.3 * (waist - self.clearance)
        plate = camera.upright(self.x - 0.25, self.x + 0.25, y - 0.06, y + 0.06, z)
        canvas.polygon(plate, (220, 220, 210), None, Material.SMOOTH, z)

    def _wheel(self, canvas: Canvas, camera: Camera, x: float, z: float) -> None:
        radius = 0.33 if self.label == CAR else 0.5
        rim = [
            camera.at(x, radius + radius * float(np.sin(t)), z + radius * float(np.cos(t)))
            for t in np.linspace(0, 2 * np.pi, 10, endpoint=False)
        ]
        canvas.polygon(rim, (22, 22, 24), self.label, Material.SMOOTH, z)


def random_vehicle(random: np.random.Generator, x: float, z: float, *, leaving: bool) -> Vehicle:
    """Mostly a car."""
    paint = PAINTS[int(random.integers(len(PAINTS)))]
    light = random.uniform(0.8, 1.15)
    colour = (paint[0] * light, paint[1] * light, paint[2] * light)
    kind = random.choice([CAR, TRUCK, BUS], p=[0.86, 0.08, 0.06])
    if kind == CAR:
        size = random.uniform(1.65, 1.9), random.uniform(1.35, 1.75), random.uniform(3.6, 4.8)
        return Vehicle(x, z, *size, 0.2, 0.52, colour, CAR, leaving)
    if kind == TRUCK:
        size = random.uniform(2.1, 2.4), random.uniform(2.5, 3.3), random.uniform(5.5, 8)
        return Vehicle(x, z, *size, 0.5, 0.45, colour, TRUCK, leaving)
    size = 2.4, random.uniform(2.8, 3.2), random.uniform(9, 12)
    return Vehicle(x, z, *size, 0.35, 0.38, colour, BUS, leaving)
