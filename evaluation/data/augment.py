"""mmsegmentation's training pipeline: resize at random, crop, flip, distort the colours, pad to the crop.

Every function takes a Sample and gives a new one; it draws from `rng` what mmsegmentation draws, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from dovit.evaluation.data.dataset import IGNORE, Sample
from dovit.evaluation.data.photometric import photometric_distortion

CROP_TRIES = 10
Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Augmentation:
    """The whole pipeline, as `augmentation(sample, rng)`; sizes are (height, width)."""

    crop_size: tuple[int, int]
    ratio_range: tuple[float, float] = (0.5, 2.0)  # of the image's own size
    cat_max_ratio: float = 0.75  # no class has more of a crop than this, if it can be helped; 1: any crop will do
    flip: float = 0.5  # in how many of the images
    photometric: bool = True
    pad_colour: tuple[int, int, int] = (124, 116, 104)  # give the model's own mean: this is ImageNet's

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """An image uint8 [*crop_size, 3] with its labels. Resizes only what is in the crop: the same pixels
        as of the whole image resized, at a fraction of the time where that is large."""
        source = (sample.labels.shape[0], sample.labels.shape[1])
        size = random_size(source, rng, self.ratio_range)
        labels = resize_labels(sample.labels, size)
        box = random_box(labels, rng, self.crop_size, self.cat_max_ratio)
        sample = replace(sample, image=_bilinear(sample.image, size, box), labels=_cut(labels, box))
        sample = random_flip(sample, rng, self.flip)
        if self.photometric:
            sample = photometric_distortion(sample, rng)
        return pad(sample, self.crop_size, self.pad_colour)


def random_flip(sample: Sample, rng: np.random.Generator, probability: float = 0.5) -> Sample:
    """`sample`, or its mirror image (left is right)."""
    if rng.random() >= probability:
        return sample
    return replace(sample, image=sample.image[:, ::-1], labels=sample.labels[:, ::-1])


def pad(sample: Sample, size: tuple[int, int], colour: tuple[int, int, int]) -> Sample:
    """`sample` with `colour`, labelled IGNORE, below and to the right until it has at least `size`."""
    height, width = sample.labels.shape
    if height >= size[0] and width >= size[1]:
        return sample
    full = (max(height, size[0]), max(width, size[1]))
    image = np.empty((*full, 3), np.uint8)
    image[...] = colour
    image[:height, :width] = sample.image
    labels = np.full(full, IGNORE, np.uint8)
    labels[:height, :width] = sample.labels
    return replace(sample, image=image, labels=labels)


def random_size(size: tuple[int, int], rng: np.random.Generator, ratio_range: tuple[float, float]) -> tuple[int, int]:
    """The size that an image of `size` is resized to, with mmcv's rounding."""
    low, high = ratio_range
    ratio = rng.random() * (high - low) + low
    short, long = sorted(int(edge * ratio) for edge in size)
    factor = min(long / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def random_box(labels: np.ndarray, rng: np.random.Generator, crop_size: tuple[int, int], cat_max_ratio: float) -> Box:
    """Where to crop `labels` (uint8 [H, W]). Draws again, up to ten times, while one class has cat_max_ratio or more
    of the labels that are not ignored, or there is only one; the last box is taken as it is."""
    height, width = min(crop_size[0], labels.shape[0]), min(crop_size[1], labels.shape[1])

    def draw() -> Box:
        top = int(rng.integers(0, labels.shape[0] - height + 1))
        return top, int(rng.integers(0, labels.shape[1] - width + 1)), height, width

    box = draw()
    if cat_max_ratio < 1:
        for _ in range(CROP_TRIES):
            if _is_varied(_cut(labels, box), cat_max_ratio):
                break
            box = draw()
    return box


def _is_varied(labels: np.ndarray, cat_max_ratio: float) -> bool:
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio)


def _cut(array: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    return array[top : top + height, left : left + width]


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """labels [H, W] → [*size], by OpenCV's rule (the corner of each pixel, not its middle), which mmsegmentation has."""
    if labels.shape == size:
        return labels
    # OpenCV's floating point too: where a corner falls on a pixel's edge, its rounding says which pixel that is
    rows, columns = (
        np.minimum((np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[rows][:, columns]


def _bilinear(image: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """`box` of the image [H, W, 3] resized to `size`.

    By Pillow's transform and not its resize: the latter averages where it shrinks, by up to 18 grey levels from what
    mmsegmentation trains on (OpenCV takes the two nearest pixels each way, at any scale), and the former makes only the
    pixels of the box. It cuts fractions off that OpenCV rounds: one grey level at most.
    """
    if image.shape[:2] == size:
        return _cut(image, box)
    top, left, height, width = box
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    resized = Image.fromarray(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        (across, 0, left * across, 0, down, top * down),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(resized)
