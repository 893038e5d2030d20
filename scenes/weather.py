"""Lighting, haze and camera effects that are applied to a rendered scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from dovit.scenes.canvas import Colour
from dovit.scenes.textures import TILE


@dataclass(frozen=True)
class Weather:
    """Sky colours, how far one sees, exposure, colour cast, gamma, blur in pixels of a 512-row image, noise."""

    zenith: Colour
    haze: Colour
    sight: float  # metres
    exposure: float
    cast: Colour
    gamma: float
    blur: float
    noise: float
    sun: int  # the side that it is on: -1 left, 1 right
    shadow: float  # how dark shadows are; 0 under a grey sky

    def facade_light(self, side: int) -> float:
        """What the houses of the side -1 or 1 get of the light: those across from the sun get most."""
        return 1 - 0.5 * self.shadow * side * self.sun


def random_weather(random: np.random.Generator) -> Weather:
    """Clear, cloudy or grey."""
    kind = random.choice(3)
    zenith = random.uniform(
        ((70, 120, 190), (120, 150, 185), (165, 172, 180))[kind],
        ((110, 160, 225), (160, 185, 215), (215, 220, 225))[kind],
    )
    pale = random.uniform(195, 235)
    haze = (pale - random.uniform(0, 14), pale - random.uniform(0, 8), pale)
    cast = random.normal(1, 0.03, 3)
    clear = (1.0, 0.6, 0.15)[kind]
    return Weather(
        zenith=(float(zenith[0]), float(zenith[1]), float(zenith[2])),
        haze=haze,
        sight=float(random.uniform(90, 400)),
        exposure=float(random.uniform(0.7, 1.25)),
        cast=(float(cast[0]), float(cast[1]), float(cast[2])),
        gamma=float(random.uniform(0.75, 1.15)),
        blur=float(random.uniform(0.3, 1.3)),
        noise=float(random.uniform(1, 7)),
        sun=int(random.choice([-1, 1])),
        shadow=clear * float(random.uniform(0.15, 0.55)),
    )


def photographed(image: np.ndarray, weather: Weather, random: np.random.Generator) -> np.ndarray:
    """A scene's colours [H, W, 3] float32 as a camera sees them: uint8."""
    curve = (np.arange(256) / 255) ** weather.gamma * 255 * weather.exposure
    seen = np.clip(image, 0, 255).astype(np.uint8)
    tables = [np.clip(curve * cast, 0, 255).astype(np.uint8).tolist() for cast in weather.cast]
    picture = Image.fromarray(seen).point([value for table in tables for value in table])
    picture = picture.filter(ImageFilter.GaussianBlur(weather.blur * image.shape[0] / 512))
    noise = _grain()[int(random.integers(TILE)) :, int(random.integers(TILE)) :]
    repeats = -(-image.shape[0] // TILE), -(-image.shape[1] // TILE), 1
    noise = np.tile(noise[:TILE, :TILE], repeats)[: image.shape[0], : image.shape[1]]
    return np.clip(np.asarray(picture, np.float32) + weather.noise * noise, 0, 255).astype(np.uint8)


@cache
def _grain() -> np.ndarray:
    """Sensor noise [2·TILE, 2·TILE, 3], unit deviation, made once; a random part of it goes over a picture."""
    return np.random.default_rng(1944).normal(0, 1, (2 * TILE, 2 * TILE, 3)).astype(np.float32)
