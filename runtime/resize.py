"""Bilinear resizing of logits as torch does it with align_corners=False: two small matrices, applied by BLAS."""

from __future__ import annotations

import numpy as np
from PIL import Image

BAND_BYTES = 1 << 25  # upsampled logits under way at a time


def interpolation(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: each row has the one or two weights of an output position."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0)
    low = np.minimum(at.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    part = (at - low).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    rows = np.arange(target)
    matrix[rows, low] += 1 - part
    matrix[rows, high] += part
    return matrix


def resize_bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [..., h, w] → [..., H, W]; no antialiasing."""
    if x.shape[-2:] == tuple(size):
        return x
    down, across = interpolation(x.shape[-2], size[0]), interpolation(x.shape[-1], size[1])
    return np.asarray(down @ (x @ across.T))


def labels_from_logits(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """logits [C, h, w] → labels [H, W]: upsampled and argmax'd in bands of rows, never all at once."""
    classes, height, width = logits.shape[0], *size
    wide = logits @ interpolation(logits.shape[2], width).T if logits.shape[2] != width else logits  # [C, h, W]
    down = interpolation(logits.shape[1], height)
    labels = np.empty(size, np.uint8 if classes <= 256 else np.int16)
    rows = max(1, BAND_BYTES // (4 * classes * width))
    for top in range(0, height, rows):
        labels[top : top + rows] = (down[top : top + rows] @ wide).argmax(axis=0)
    return labels


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] → [h, w, 3], bilinear by Pillow, which averages where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
