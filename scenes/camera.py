"""From metres on the street to pixels: a pinhole camera that looks along the road."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """x metres to the right of the camera, y metres above the ground, z metres ahead."""

    horizon: float  # the row of infinity, in pixels
    centre: float  # the column of the vanishing point, in pixels
    focal: float  # in pixels
    height: float  # of the camera above the ground, in metres

    def at(self, x: float, y: float, z: float) -> Point:
        """The pixel (column, row) of a point."""
        scale = self.focal / z
        return self.centre + scale * x, self.horizon + scale * (self.height - y)

    def scale(self, z: float) -> float:
        """Pixels of one metre at a distance."""
        return self.focal / z

    def upright(self, x0: float, x1: float, y0: float, y1: float, z: float) -> list[Point]:
        """A rectangle that faces the camera."""
        return [self.at(x0, y0, z), self.at(x1, y0, z), self.at(x1, y1, z), self.at(x0, y1, z)]

    def along(self, x: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
        """A rectangle that runs along the street."""
        return [self.at(x, y0, z0), self.at(x, y0, z1), self.at(x, y1, z1), self.at(x, y1, z0)]

    def flat(self, x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> list[Point]:
        """A rectangle on the ground, or parallel to it."""
        return [self.at(x0, y, z0), self.at(x1, y, z0), self.at(x1, y, z1), self.at(x0, y, z1)]


@dataclass(frozen=True)
class Face:
    """An upright plane with coordinates of its own: u metres along it from (x, z), v metres above the ground."""

    camera: Camera
    x: float
    z: float
    across: float  # how far x goes with u: -1 or 1 for a plane that faces the camera, 0 for one along the street
    ahead: float  # how far z goes with u: 0 or 1

    def at(self, u: float, v: float) -> Point:
        """The pixel of a point on the plane."""
        return self.camera.at(self.x + u * self.across, v, self.distance(u))

    def rectangle(self, u0: float, u1: float, v0: float, v1: float) -> list[Point]:
        """A rectangle on the plane."""
        return [self.at(u0, v0), self.at(u1, v0), self.at(u1, v1), self.at(u0, v1)]

    def distance(self, u: float) -> float:
        """Metres ahead of the camera at u."""
        return self.z + u * self.ahead
