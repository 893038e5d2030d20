"""Bilinear resizing of logits as torch does it with align_corners=False: two small matrices, applied by BLAS."""

from __future__ import annotations

import numpy as np
from PIL import Image

BAND_BYTES = 1 << 25  # upsampled logits under way at a time


def interpolation(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: each row has the one or two weights of an output position."""
    # in float32 as torch, whose rounding of the positions shows in the weights of large images
    scale = np.float32(source) / np.float32(target)
    at = np.maximum(scale * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(at.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    part = np.clip(at - low, 0, 1).astype(np.float32)
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


def label_dtype(classes: int) -> np.dtype:
    """Of label maps."""
    return np.dtype(np.uint8 if classes <= 256 else np.int16)


def labels_from_logits(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """logits float32 [C, h, w] → labels [H, W], uint8 (int16 with more than 256 classes), the lowest class on a tie.

    Upsampled in bands of rows, each from the few source rows that it lies between: memory stays near BAND_BYTES for an
    image of any height, and no row is multiplied by zeros.
    """
    classes, height, width = logits.shape[0], *size
    across = None if logits.shape[2] == width else interpolation(logits.shape[2], width).T  # [w, W]
    down = None if logits.shape[1] == height else interpolation(logits.shape[1], height)  # [H, h]
    labels = np.empty(size, label_dtype(classes))
    widest = max(width, logits.shape[2]) * max(1, logits.shape[1] // height)  # floats behind one row of labels
    rows = max(1, BAND_BYTES // (4 * classes * widest))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = top, bottom
        if down is not None:
            used = np.flatnonzero(down[top:bottom].any(axis=0))
            first, last = used[0], used[-1] + 1
        band = logits[:, first:last]  # [C, s, w]
        if across is not None:
            stacked = band.reshape(-1, band.shape[2]) @ across  # one large product instead of C small ones
            band = stacked.reshape(*band.shape[:2], width)  # [C, s, W]
        if down is not None:
            band = down[top:bottom, first:last] @ band  # [C, rows, W]
        labels[top:bottom] = band.argmax(axis=0)
    return labels


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] → [h, w, 3], bilinear by Pillow, which averages where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
