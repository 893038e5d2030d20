"""The sky with its clouds, and the trees on the horizon."""

from __future__ import annotations

import numpy as np

from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas, Colour
from dovit.scenes.classes import SKY, VEGETATION
from dovit.scenes.textures import Material

BANDS = 24
RIDGE = 60  # points of the line of trees, from the left edge of the image to the right


def draw_sky(canvas: Canvas, camera: Camera, random: np.random.Generator, zenith: Colour, haze: Colour) -> None:
    """A gradient from `zenith` to `haze`, clouds, and trees on the horizon."""
    for band in range(BANDS):
        top = camera.horizon * band / BANDS
        share = (band / BANDS) ** 1.5
        mixed = [z + (h - z) * share for z, h in zip(zenith, haze, strict=True)]
        box = [(0, top), (canvas.width, top), (canvas.width, canvas.height), (0, canvas.height)]
        canvas.polygon(box, (mixed[0], mixed[1], mixed[2]), SKY, Material.SKY)
    grey = random.random() < 0.3
    for _ in range(int(random.integers(0, 5))):
        x, y = random.uniform(0, canvas.width), random.uniform(0, 0.8) * camera.horizon
        white = random.uniform(140, 190) if grey else random.uniform(205, 245)
        for _ in range(7):
            place = x + random.normal(0, 0.09) * canvas.height, y + random.normal(0, 0.014) * canvas.height
            radii = random.uniform(0.04, 0.12) * canvas.height, random.uniform(0.01, 0.026) * canvas.height
            shade = white + random.uniform(-8, 8)
            canvas.ellipse(place, radii, (shade, shade, shade + 4), SKY, Material.SKY)
    green = random.uniform((60, 85, 50), (110, 130, 95))
    columns = np.linspace(0, canvas.width, RIDGE)
    tops = camera.horizon - canvas.height * random.uniform(0.005, 0.05) * (0.5 + random.random(RIDGE))
    ridge = [*zip(columns.tolist(), tops.tolist(), strict=True)]
    below = [(float(canvas.width), camera.horizon + 2), (0.0, camera.horizon + 2)]
    canvas.polygon([*ridge, *below], (green[0], green[1], green[2]), VEGETATION, Material.LEAVES, z=60)
