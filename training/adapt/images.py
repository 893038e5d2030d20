"""The images that a fit takes: files without labels, or some of a data set with theirs, and what a model sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dovit.evaluation.data import IGNORE, Dataset, Sample
from dovit.evaluation.data.augment import resize_labels
from dovit.export.model import ModelConfig
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image
from dovit.runtime.whole import fit_image


class Images(Protocol):
    """Read when they are asked for; DovitError names a file that cannot be read."""

    @property
    def labelled(self) -> bool:
        """Whether the samples have labels. Else all of them are IGNORE."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...


@dataclass(frozen=True)
class Files:
    """Image files without labels."""

    paths: Sequence[Path]
    labelled = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Sample:
        image = read_image(self.paths[number])
        return Sample(str(self.paths[number]), image, np.full(image.shape[:2], IGNORE, np.uint8))


@dataclass(frozen=True)
class Labelled:
    """Those of `dataset` that `numbers` names."""

    dataset: Dataset
    numbers: Sequence[int]
    labelled = True

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Sample:
        return self.dataset[self.numbers[number]]


def window(sample: Sample, config: ModelConfig) -> Sample:
    """What the model sees of `sample`: the whole at its size, padding is IGNORE; in mode slide, the window in the middle."""
    height, width = config.image_size
    image, labels = sample.image, sample.labels
    if config.mode == "whole":
        fitted = fit_image(image, config.image_size, keep_ratio=config.keep_ratio, fill=config.mean)
        whole = np.full(config.image_size, IGNORE, np.uint8)
        whole[: fitted.inside[0], : fitted.inside[1]] = resize_labels(labels, fitted.inside)
        return replace(sample, image=fitted.pixels, labels=whole)
    scale = max(height / image.shape[0], width / image.shape[1], 1.0)
    if scale > 1:  # a window does not fit into it
        size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
        image, labels = resize_image(image, size), resize_labels(labels, size)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    middle = np.s_[top : top + height, left : left + width]
    return replace(sample, image=np.ascontiguousarray(image[middle]), labels=labels[middle])


def label_shares(labels: np.ndarray, config: ModelConfig) -> np.ndarray:
    """`labels` uint8 [H, W] of the model's image → float32 [N, C]: the share of each patch's pixels that has each label. Pixels
    that are ignored have none."""
    patch, (rows, columns) = config.backbone.patch, config.grid
    patches = labels[: rows * patch, : columns * patch].reshape(rows, patch, columns, patch)
    each = patches.transpose(0, 2, 1, 3).reshape(rows * columns, patch * patch)  # [N, P²]
    places = 256 * np.arange(len(each))[:, None] + each  # one of 256 values in one of N patches
    counts = np.bincount(places.ravel(), minlength=256 * len(each)).reshape(len(each), 256)
    return (counts[:, : config.classes] / patch**2).astype(np.float32)
