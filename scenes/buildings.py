"""Rows of houses along the street, with windows, doors, shops and roofs, and walls and fences between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dovit.scenes.barriers import Barrier, random_barrier
from dovit.scenes.camera import Camera, Face
from dovit.scenes.canvas import Canvas, Colour, lit
from dovit.scenes.classes import BUILDING
from dovit.scenes.textures import Material

# Walls are grey as the road, pale as the sky, green as trees as well as red and yellow: colour alone does not tell them.
WALLS: tuple[tuple[Colour, Material], ...] = (
    ((112, 110, 108), Material.PLASTER),
    ((86, 88, 94), Material.PLASTER),
    ((198, 204, 212), Material.PLASTER),
    ((186, 170, 140), Material.PLASTER),
    ((150, 84, 66), Material.BRICK),
    ((128, 96, 74), Material.BRICK),
    ((72, 92, 62), Material.PLASTER),
    ((108, 122, 92), Material.PLASTER),
    ((204, 180, 120), Material.PLASTER),
)
ROOFS: tuple[Colour, ...] = ((122, 62, 48), (74, 72, 76), (98, 84, 70))
PITCH = 2.6  # metres from one column of windows to the next
SIGHT = 110.0  # metres: houses farther off are not drawn


@dataclass(frozen=True)
class Facade:
    """How a house's walls look; one house has one, drawn on each of its faces."""

    height: float
    wall: Colour
    material: Material
    glass: np.ndarray  # [16] grey levels: panes mirror different things, and take theirs in turns
    storey: float  # metres
    door: int  # in which column of windows
    shop: Colour | None  # of the sign over a shop window

    def draw(self, canvas: Canvas, face: Face, length: float, light: float) -> None:
        """`length` metres of wall on `face`, in `light` times its colour."""
        wall = lit(self.wall, light)
        canvas.polygon(face.rectangle(0, length, 0, self.height), wall, BUILDING, self.material, face.distance(0))
        if self.shop is not None:
            self._draw_shop(canvas, face, length, self.shop)
        columns = max(1, int(length / PITCH))
        pitch = length / columns
        for column in range(columns):
            left, right = (column + 0.25) * pitch, (column + 0.75) * pitch
            if face.camera.scale(face.distance(left)) < 1.5:
                break  # a window is a pixel from here on
            self._draw_column(canvas, face, (left, right), column, light)
        eaves = lit(self.wall, 0.6 * light)
        canvas.polygon(
            face.rectangle(0, length, self.height - 0.5, self.height), eaves, None, self.material, face.distance(0)
        )

    def _draw_column(self, canvas: Canvas, face: Face, between: tuple[float, float], column: int, light: float) -> None:
        left, right = between
        z = face.distance(left)
        frame = lit(self.wall, 1.22 * light)
        for row, bottom in enumerate(np.arange(1.0, self.height - 2.0, self.storey)):
            if row == 0 and self.shop is not None:
                continue
            foot = 0.0 if row == 0 and column == self.door else float(bottom)
            grey = float(self.glass[(5 * column + 3 * row) % len(self.glass)])
            pane: Colour = (62, 48, 40) if foot == 0 else (grey, grey * 1.04, grey * 1.1)
            if face.camera.scale(z) > 12:  # frames are seen from near only
                around = face.rectangle(left - 0.12, right + 0.12, foot, bottom + 1.62)
                canvas.polygon(around, frame, None, self.material, z)
            canvas.polygon(face.rectangle(left, right, foot, bottom + 1.5), pane, None, self.material, z)

    def _draw_shop(self, canvas: Canvas, face: Face, length: float, sign: Colour) -> None:
        z = face.distance(0)
        panels = max(1, int(length / 3))
        for number in range(panels):
            left, right = 0.4 + (length - 0.4) * number / panels, (length - 0.4) * (number + 1) / panels
            grey = float(self.glass[number % len(self.glass)])
            pane = face.rectangle(left, right, 0.4, 2.5)
            canvas.polygon(pane, (grey, grey, grey * 1.06), None, self.material, face.distance(left))
        canvas.polygon(face.rectangle(0.2, length - 0.2, 2.55, 3.1), sign, None, self.material, z)


@dataclass(frozen=True)
class House:
    """A house on one side of the street: one wall along it at x, from z0 to z1, one facing the camera at z0."""

    side: int  # -1 left, 1 right
    x: float
    z0: float
    z1: float
    width: float
    roof: float  # height of the ridge above the eaves; 0: flat
    tiles: Colour
    light: float  # that the wall along the street gets
    facade: Facade

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """The wall that faces the camera, the roof, then the wall along the street."""
        eaves, ridge = self.facade.height, self.facade.height + self.roof
        middle = self.x + self.side * self.width / 2
        self.facade.draw(canvas, Face(camera, self.x, self.z0, self.side, 0), self.width, 0.82)
        if self.roof:
            far_side = self.x + self.side * self.width
            gable = [
                camera.at(self.x, eaves, self.z0),
                camera.at(middle, ridge, self.z0),
                camera.at(far_side, eaves, self.z0),
            ]
            canvas.polygon(gable, lit(self.facade.wall, 0.8), BUILDING, self.facade.material, self.z0)
            slope = [
                camera.at(self.x, eaves, self.z0),
                camera.at(self.x, eaves, self.z1),
                camera.at(middle, ridge, self.z1),
                camera.at(middle, ridge, self.z0),
            ]
            canvas.polygon(slope, self.tiles, BUILDING, Material.BRICK, self.z0)
        self.facade.draw(canvas, Face(camera, self.x, self.z0, 0, 1), self.z1 - self.z0, self.light)


@dataclass(frozen=True)
class Block:
    """The block of houses across the end of the street."""

    z: float
    starts: tuple[float, ...]  # x of the left end of each house, and of the right end of the last
    facades: tuple[Facade, ...]

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        """One house after the other."""
        for left, right, facade in zip(self.starts[:-1], self.starts[1:], self.facades, strict=True):
            facade.draw(canvas, Face(camera, left, self.z, 1, 0), right - left, 0.95)


def random_row(random: np.random.Generator, side: int, x: float, light: float) -> list[House | Barrier]:
    """A row of houses from the camera to far away; some of its gaps are closed by walls and fences. Far to near."""
    row: list[House | Barrier] = []
    z = random.uniform(1.5, 6)
    base = random.uniform(4, 14)
    while z < SIGHT:
        depth = random.uniform(6, 18)
        if random.random() < 0.8:
            facade = _random_facade(random, base * random.uniform(0.6, 1.5))
            roof = random.uniform(1.5, 3.2) if random.random() < 0.6 and facade.height < 10 else 0.0
            tiles = lit(ROOFS[int(random.integers(len(ROOFS)))], random.uniform(0.75, 1.2))
            at = x + side * random.uniform(0, 1.5)
            row.append(House(side, at, z, z + depth, 9.0 if roof else 14.0, roof, tiles, light, facade))
        elif random.random() < 0.75:
            row.append(random_barrier(random, x, z, z + depth))
        z += depth + random.choice([0, 0, random.uniform(1, 8)])
    return row[::-1]


def random_block(random: np.random.Generator, z: float) -> Block:
    """Houses side by side, wide enough for the whole view."""
    starts = tuple(float(x) for x in np.cumsum(random.uniform(8, 22, 24)) - 170)
    return Block(z, starts, tuple(_random_facade(random, random.uniform(6, 20)) for _ in starts[1:]))


def _random_facade(random: np.random.Generator, height: float) -> Facade:
    colour, material = WALLS[int(random.integers(len(WALLS)))]
    tint = random.uniform(-16, 16) + random.uniform(-8, 8, 3)
    wall = (colour[0] + tint[0], colour[1] + tint[1], colour[2] + tint[2])
    glass = random.uniform(30, 200) * random.uniform(0.6, 1.2, 16)
    sign = random.uniform(40, 200) + random.uniform(-40, 40, 3)
    shop = (float(sign[0]), float(sign[1]), float(sign[2])) if random.random() < 0.3 else None
    return Facade(height, wall, material, glass, random.uniform(2.7, 3.6), int(random.integers(4)), shop)
