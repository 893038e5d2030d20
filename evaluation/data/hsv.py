"""OpenCV's 8-bit HSV (hue 0…179 in steps of 2°, saturation and value 0…255) in numpy.

Its coarse steps are part of what mmsegmentation trains with: a hue that goes there and back moves by up to 1°, that is
4 grey levels. So the conversion to HSV is OpenCV's, in its fixed-point arithmetic, and not a finer one.
"""

from __future__ import annotations

import numpy as np

HUES = 180
_SHIFT = 12  # bits behind the point
_STEPS = np.arange(1, 256)
_SATURATION = np.concatenate([[0], np.rint((255 << _SHIFT) / _STEPS)]).astype(np.int32)  # 255 / value
_HUE = np.concatenate([[0], np.rint((HUES << _SHIFT) / (6 * _STEPS))]).astype(np.int32)  # 30 / chroma
_HALF = np.int32(1 << (_SHIFT - 1))


def _hue_distance() -> np.ndarray:
    """float32 [3, 256]: how far each hue is from red, green and blue: a channel is value · (1 - saturation · this)."""
    sector = np.arange(256) % HUES / 30
    around = (np.array([[5], [3], [1]]) + sector) % 6
    return np.clip(np.minimum(around, 4 - around), 0, 1).astype(np.float32)


_HUE_DISTANCE = _hue_distance()


def to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 RGB [H, W, 3] → hue, saturation, value, each uint8 [H, W]; bit for bit OpenCV's."""
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    saturation = (chroma * _SATURATION[value] + _HALF) >> _SHIFT
    hue = np.where(
        value == red,
        green - blue,
        np.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    hue = (hue * _HUE[chroma] + _HALF) >> _SHIFT
    hue += HUES * (hue < 0)
    return hue.astype(np.uint8), saturation.astype(np.uint8), value.astype(np.uint8)


def to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """hue (0…179), saturation, value, each uint8 [H, W] → uint8 RGB [H, W, 3]; OpenCV's to one grey level."""
    image = np.empty((*hue.shape, 3), np.uint8)
    bright = value.astype(np.float32)
    chroma = bright * saturation * np.float32(1 / 255)
    for channel in range(3):
        image[..., channel] = bright - chroma * _HUE_DISTANCE[channel][hue]  # cut off and not rounded, as OpenCV does
    return image
