"""mmsegmentation's PhotoMetricDistortion: brightness, contrast, saturation and hue, each in half of the images.

Every function draws from `rng` what mmsegmentation draws, in its order: the same draws make the same image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dovit.evaluation.data.dataset import Sample
from dovit.evaluation.data.hsv import HUES, to_hsv, to_rgb

_LEVELS = np.arange(256, dtype=np.float32)


def photometric_distortion(
    sample: Sample,
    rng: np.random.Generator,
    brightness_delta: float = 32,
    contrast_range: tuple[float, float] = (0.5, 1.5),
    saturation_range: tuple[float, float] = (0.5, 1.5),
    hue_delta: int = 18,
) -> Sample:
    """`sample` with other colours (`hue_delta` in steps of 2°); the contrast changes before the saturation or last."""
    image = _brightness(sample.image, rng, brightness_delta)
    early = bool(rng.integers(2))
    if early:
        image = _contrast(image, rng, contrast_range)
    image = _saturation(image, rng, saturation_range)
    image = _hue(image, rng, hue_delta)
    if not early:
        image = _contrast(image, rng, contrast_range)
    return replace(sample, image=image)


def _brightness(image: np.ndarray, rng: np.random.Generator, delta: float) -> np.ndarray:
    return _scaled(image, beta=rng.uniform(-delta, delta)) if rng.integers(2) else image


def _contrast(image: np.ndarray, rng: np.random.Generator, between: tuple[float, float]) -> np.ndarray:
    return _scaled(image, alpha=rng.uniform(*between)) if rng.integers(2) else image


def _saturation(image: np.ndarray, rng: np.random.Generator, between: tuple[float, float]) -> np.ndarray:
    if not rng.integers(2):
        return image
    hue, saturation, value = to_hsv(image)
    return to_rgb(hue, _scaled(saturation, alpha=rng.uniform(*between)), value)


def _hue(image: np.ndarray, rng: np.random.Generator, delta: int) -> np.ndarray:
    if not rng.integers(2):
        return image
    hue, saturation, value = to_hsv(image)
    turned = (np.arange(256) + rng.integers(-delta, delta)) % HUES
    return to_rgb(turned.astype(np.uint8)[hue], saturation, value)


def _scaled(image: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
    """alpha · image + beta, clipped and cut to uint8; by a table, as there are only 256 values."""
    table = np.clip(_LEVELS * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)
    return table[image]
