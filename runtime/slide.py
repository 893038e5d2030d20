"""`slide` mode: mmsegmentation's sliding window."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from dovit.runtime.errors import UsageError
from dovit.runtime.resize import labels_from_logits, resize_bilinear, resize_image
from dovit.runtime.result import Result, Window
from dovit.runtime.whole import Core

MOST_PIXELS = 1 << 26  # of an enlarged image: 8192×8192


def starts(length: int, crop: int, stride: int) -> list[int]:
    """Where the windows of one dimension begin: every `stride`, the last one clamped to the border."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(k * stride, length - crop), 0) for k in range(count)]


def segment_slide(image: np.ndarray, size: tuple[int, int], stride: tuple[int, int], core: Core) -> Result:
    """Segment `image` uint8 [H, W, 3]: logits of all windows are upsampled, summed and divided by how many lie there.

    An image smaller than the window is first enlarged, keeping its proportions, until the window fits. Raises
    UsageError for an image so narrow that this makes it enormous.
    """
    original = (image.shape[0], image.shape[1])
    scale = max(1.0, size[0] / original[0], size[1] / original[1])
    scaled = (max(size[0], math.floor(original[0] * scale + 0.5)), max(size[1], math.floor(original[1] * scale + 0.5)))
    if scale > 1:
        if scaled[0] * scaled[1] > MOST_PIXELS:
            raise UsageError(
                f"an image of {original[0]}×{original[1]} is too narrow for windows of {size[0]}×{size[1]}: "
                "use mode whole"
            )
        image = resize_image(image, scaled)
    else:
        scaled = original
    total, count = np.zeros((0,), np.float32), np.zeros(scaled, np.float32)
    windows = []
    for y, x in product(starts(scaled[0], size[0], stride[0]), starts(scaled[1], size[1], stride[1])):
        where = np.s_[y : y + size[0], x : x + size[1]]
        result = core(np.ascontiguousarray(image[where]))
        assert result.logits is not None
        if not total.size:
            total = np.zeros((len(result.logits), *scaled), np.float32)
        total[(slice(None), *where)] += resize_bilinear(result.logits, size)
        count[where] += 1
        windows.append(Window(y, x, result.without_logits()))
    total /= count
    results = [window.result for window in windows]
    return Result(
        labels=labels_from_logits(total, original),
        kept=tuple(sum(counts) for counts in zip(*(r.kept for r in results), strict=True)),
        tokens=sum(r.tokens for r in results),
        keep_maps=np.stack([r.keep_maps for r in results]),
        confidence_maps=np.stack([r.confidence_maps for r in results]),
        logits=total,
        windows=tuple(windows),
    )
