"""Large shadows on the ground and on houses."""

from __future__ import annotations

import numpy as np

from dovit.scenes.camera import Camera, Point
from dovit.scenes.canvas import Canvas
from dovit.scenes.ground import Street

END = 60.0  # metres: shadows farther off are not seen


def draw_shadows(
    canvas: Canvas, camera: Camera, street: Street, random: np.random.Generator, sun: int, strength: float
) -> None:
    """Shadows of what stands on the side `sun` (-1 left, 1 right) fall towards the other side, and up its houses.

    They darken the image by `strength` and leave the labels as they are.
    """
    near, far = (street.house_left, street.house_right) if sun < 0 else (street.house_right, street.house_left)
    polygons: list[list[Point]] = []
    z = random.uniform(2, 8)
    while z < END:
        length, share, slant = random.uniform(3, 15), random.uniform(0.1, 1.6), random.uniform(-2, 3)
        reach = near + min(share, 1.0) * (far - near)
        polygons.append(
            [
                camera.at(near + sun, 0, z),
                camera.at(reach, 0, z + slant + 2),
                camera.at(reach, 0, z + slant + 2 + length),
                camera.at(near + sun, 0, z + length),
            ]
        )
        if share > 1:  # it reaches the houses across the street
            polygons.append(camera.along(far, 0, 8 * (share - 1), z + slant + 2, z + slant + 2 + length))
        z += length + random.uniform(1, 12)
    canvas.shade(polygons, strength)
