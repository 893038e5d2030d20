"""Drawing an image and its labels at once: every shape goes to both with the same coordinates, so labels are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dovit.scenes.camera import Point
from dovit.scenes.textures import Material

Colour = tuple[float, float, float]


def lit(colour: Colour, light: float) -> Colour:
    """`colour` in `light` times the light."""
    return colour[0] * light, colour[1] * light, colour[2] * light


class Canvas:
    """An image [H, W, 3], labels [H, W], and for each pixel the material that gives it a texture in the end."""

    def __init__(self, height: int, width: int, haze: Colour, sight: float) -> None:
        self.height, self.width = height, width
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height))
        self.materials = Image.new("L", (width, height))
        self._haze, self._sight = haze, sight
        self._on_image = ImageDraw.Draw(self.image)
        self._on_labels = ImageDraw.Draw(self.labels)
        self._on_materials = ImageDraw.Draw(self.materials)

    def polygon(
        self, points: Sequence[Point], colour: Colour, label: int | None, material: Material, z: float = 0.0
    ) -> None:
        """Fill a polygon `z` metres away: farther colours fade into the haze. Label None: a detail of what is there."""
        self._on_image.polygon(points, fill=self.faded(colour, z))
        if label is not None:
            self._on_labels.polygon(points, fill=label)
            self._on_materials.polygon(points, fill=material)

    def ellipse(
        self, centre: Point, radii: Point, colour: Colour, label: int | None, material: Material, z: float = 0.0
    ) -> None:
        """Fill an axis-parallel ellipse."""
        box = [centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]]
        self._on_image.ellipse(box, fill=self.faded(colour, z))
        if label is not None:
            self._on_labels.ellipse(box, fill=label)
            self._on_materials.ellipse(box, fill=material)

    def line(
        self,
        points: Sequence[Point],
        width: float,
        colour: Colour,
        label: int | None,
        material: Material,
        z: float = 0.0,
    ) -> None:
        """Draw a line of `width` pixels, at least one."""
        wide = max(1, round(width))
        self._on_image.line(points, fill=self.faded(colour, z), width=wide)
        if label is not None:
            self._on_labels.line(points, fill=label, width=wide)
            self._on_materials.line(points, fill=material, width=wide)

    def shade(self, polygons: Sequence[Sequence[Point]], strength: float) -> None:
        """Darken what is drawn so far under `polygons`: cast shadows."""
        mask = Image.new("L", (self.width, self.height))
        pen = ImageDraw.Draw(mask)
        for points in polygons:
            pen.polygon(points, fill=round(255 * strength))
        self.image.paste((10, 12, 22), mask=mask)

    def faded(self, colour: Colour, z: float) -> tuple[int, int, int]:
        """`colour` as seen through `z` metres of haze."""
        clear = float(np.exp(-z / self._sight))
        red, green, blue = (
            min(255, max(0, round(h + (c - h) * clear))) for c, h in zip(colour, self._haze, strict=True)
        )
        return red, green, blue
