"""`whole` mode: the image is resized to the bundle's size, and its logits are resized to the image's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dovit.runtime.resize import labels_from_logits, resize_bilinear, resize_image
from dovit.runtime.result import Result

Core = Callable[[np.ndarray], Result]  # uint8 [h, w, 3] of the bundle's size → labels and logits at that size


@dataclass(frozen=True)
class FittedImage:
    """An image resized to the bundle's size, with what is needed to map its labels back."""

    pixels: np.ndarray  # uint8 [h, w, 3]
    original: tuple[int, int]  # the image's height and width
    inside: tuple[int, int]  # what it fills of [h, w], from the top left; the rest is padding
    two_steps: bool  # logits are resized to [h, w], cut, and resized again, as mmsegmentation does

    @property
    def padded(self) -> bool:
        """Whether there is padding."""
        return self.pixels.shape[:2] != self.inside

    @property
    def needs_logits(self) -> bool:
        """Whether the labels of the image are made of the logits: those of the bundle's size are not its own."""
        return self.pixels.shape[:2] != self.original

    def labelled(self, result: Result, *, own_size: bool = True) -> Result:
        """The result for the image: with labels at its own size, or at the size that it has been given."""
        height, width = self.inside
        if self.padded:
            result = replace(result, filled=self.inside)
        if not own_size:
            return replace(result, labels=result.labels[:height, :width])
        if not self.needs_logits:
            return result
        logits = result.logits
        assert logits is not None
        if self.two_steps:
            size = (self.pixels.shape[0], self.pixels.shape[1])
            logits = resize_bilinear(logits, size)[:, :height, :width]
        return replace(result, labels=labels_from_logits(logits, self.original))


def fit_image(
    image: np.ndarray, size: tuple[int, int], *, keep_ratio: bool = False, fill: Sequence[float] = (0, 0, 0)
) -> FittedImage:
    """`image` uint8 [H, W, 3] at `size`: stretched, or scaled until it fits inside and padded at the bottom and right.

    `fill`: the padding's red, green and blue, rounded to whole numbers.
    """
    original = (image.shape[0], image.shape[1])
    if not keep_ratio:
        return FittedImage(resize_image(image, size), original, size, two_steps=False)
    scale = min(size[0] / original[0], size[1] / original[1])
    # rounded as mmcv's rescale_size does
    inside = (
        min(size[0], max(1, int(original[0] * scale + 0.5))),
        min(size[1], max(1, int(original[1] * scale + 0.5))),
    )
    scaled = resize_image(image, inside)
    if inside == tuple(size):
        return FittedImage(scaled, original, inside, two_steps=True)
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = np.rint(fill).clip(0, 255)
    pixels[: inside[0], : inside[1]] = scaled
    return FittedImage(pixels, original, inside, two_steps=True)


def segment_whole(
    image: np.ndarray, size: tuple[int, int], core: Core, *, keep_ratio: bool = False, fill: Sequence[float] = (0, 0, 0)
) -> Result:
    """Segment `image` uint8 [H, W, 3] of any size, brought to `size` by `fit_image`; the labels are [H, W]."""
    fitted = fit_image(image, size, keep_ratio=keep_ratio, fill=fill)
    return fitted.labelled(core(fitted.pixels))
