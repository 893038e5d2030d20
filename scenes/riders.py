"""Bicycles and motorcycles, with and without someone on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas, Colour
from dovit.scenes.classes import BICYCLE, MOTORCYCLE, RIDER
from dovit.scenes.people import Clothes, draw_head, draw_trunk, random_clothes
from dovit.scenes.textures import Material

TYRE: Colour = (24, 24, 26)


@dataclass(frozen=True)
class TwoWheeler:
    """A bicycle or a motorcycle, seen from the side or from its end."""

    x: float
    z: float
    label: int
    paint: Colour
    aside: bool
    rider: Clothes | None

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """Shadow, machine, then who rides it."""
        scale = camera.scale(self.z)
        long = 0.95 if self.aside else 0.25
        shadow = camera.flat(self.x - long, self.x + long, self.z - 0.2, self.z + 0.4)
        canvas.polygon(shadow, (44, 44, 48), None, Material.SMOOTH, self.z)
        if self.aside:
            self._draw_aside(canvas, camera, scale)
        else:
            self._draw_end(canvas, camera, scale)
        if self.rider is not None:
            self._draw_rider(canvas, camera, self.rider, scale)

    def _draw_aside(self, canvas: Canvas, camera: Camera, scale: float) -> None:
        x, z = self.x, self.z
        for side in (-1, 1):
            centre = camera.at(x + side * 0.52, 0.34, z)
            if self.label == BICYCLE:
                _draw_ring(canvas, centre, 0.34 * scale, 0.06 * scale, z)
            else:
                canvas.ellipse(centre, (0.32 * scale, 0.32 * scale), TYRE, self.label, Material.SMOOTH, z)
        if self.label == MOTORCYCLE:
            body = [
                camera.at(x - 0.7, 0.75, z),
                camera.at(x - 0.2, 0.3, z),
                camera.at(x + 0.3, 0.3, z),
                camera.at(x + 0.55, 0.95, z),
                camera.at(x + 0.1, 0.95, z),
                camera.at(x - 0.1, 0.78, z),
            ]
            canvas.polygon(body, self.paint, self.label, Material.SMOOTH, z)
        crank, seat, bar = camera.at(x, 0.34, z), camera.at(x - 0.16, 0.95, z), camera.at(x + 0.42, 1.0, z)
        for start, end in ((crank, seat), (crank, bar), (seat, bar), (bar, camera.at(x + 0.52, 0.34, z))):
            canvas.line([start, end], 0.06 * scale, self.paint, self.label, Material.SMOOTH, z)

    def _draw_end(self, canvas: Canvas, camera: Camera, scale: float) -> None:
        x, z = self.x, self.z
        wide = 0.05 if self.label == BICYCLE else 0.1
        radii = max(wide * scale, 0.6), 0.34 * scale
        canvas.ellipse(camera.at(x, 0.34, z), radii, TYRE, self.label, Material.SMOOTH, z)
        if self.label == MOTORCYCLE:
            body = camera.upright(x - 0.2, x + 0.2, 0.5, 0.95, z)
            canvas.polygon(body, self.paint, self.label, Material.SMOOTH, z)
            lamp = camera.at(x, 0.8, z)
            canvas.ellipse(lamp, (0.07 * scale, 0.07 * scale), (225, 60, 50), None, Material.SMOOTH, z)
        bar = [camera.at(x - 0.3, 1.0, z), camera.at(x + 0.3, 1.0, z)]
        canvas.line(bar, 0.06 * scale, self.paint, self.label, Material.SMOOTH, z)

    def _draw_rider(self, canvas: Canvas, camera: Camera, rider: Clothes, scale: float) -> None:
        back = -0.16 if self.aside else 0.0
        for side in (-1, 1):
            hip = camera.at(self.x + back + 0.08 * side, 0.98, self.z)
            foot = camera.at(self.x + 0.1 * side, 0.4, self.z)
            canvas.line([hip, foot], 0.15 * scale, rider.trousers, RIDER, Material.CLOTH, self.z)
        if self.aside:
            arm = [camera.at(self.x, 1.4, self.z), camera.at(self.x + 0.4, 1.02, self.z)]
            canvas.line(arm, 0.1 * scale, rider.coat, RIDER, Material.CLOTH, self.z)
        draw_trunk(canvas, camera, (self.x + back / 2, self.z), (0.95, 1.5), 1.0, rider.coat, RIDER)
        draw_head(canvas, camera, (self.x - back / 2, self.z), 1.66, rider, RIDER)


def random_two_wheeler(random: np.random.Generator, x: float, z: float, *, ridden: bool) -> TwoWheeler:
    """Mostly a bicycle."""
    label = BICYCLE if random.random() < 0.7 else MOTORCYCLE
    red, green, blue = (float(v) for v in random.uniform(20, 200, 3))
    rider = random_clothes(random) if ridden else None
    return TwoWheeler(x, z, label, (red, green, blue), bool(random.random() < 0.5), rider)


def _draw_ring(canvas: Canvas, centre: tuple[float, float], radius: float, width: float, z: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 15)
    points = [(centre[0] + radius * float(np.cos(t)), centre[1] + radius * float(np.sin(t))) for t in angles]
    canvas.line(points, width, TYRE, BICYCLE, Material.SMOOTH, z)
