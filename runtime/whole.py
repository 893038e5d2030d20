"""`whole` mode: the image is resized to the bundle's size, its logits are resized back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dovit.runtime.resize import labels_from_logits, resize_image
from dovit.runtime.result import Result

Core = Callable[[np.ndarray], Result]  # uint8 [h, w, 3] of the bundle's size → labels and logits at that size


def segment_whole(image: np.ndarray, size: tuple[int, int], core: Core) -> Result:
    """Segment `image` uint8 [H, W, 3] of any size; the labels are [H, W]."""
    if image.shape[:2] == tuple(size):
        return core(image)
    return with_labels_of(core(resize_image(image, size)), (image.shape[0], image.shape[1]))


def with_labels_of(result: Result, original: tuple[int, int]) -> Result:
    """The result of an image that was resized, with labels at its `original` height and width, from its logits."""
    assert result.logits is not None
    return replace(result, labels=labels_from_logits(result.logits, original))
