"""A labelled data set of random images for models of 7 classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from models import random_images, small_config

from dovit.evaluation.data.dataset import Sample


@dataclass
class Images:
    """A data set of random images and labels; the images are 70×100, so that they are resized on the way."""

    count: int
    classes: int = 7
    class_names = None
    palette = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        random = np.random.default_rng(number)
        image = random_images(small_config(image_size=(80, 112)), seed=number)[0].numpy()[:70, :100]
        labels = random.integers(0, 7, (70, 100)).astype(np.uint8)
        labels[:9] = 255
        return Sample(f"image {number}", np.ascontiguousarray(image), labels)
