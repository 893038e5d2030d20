"""The interface of a data set: labelled images, accessed by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORE = 255  # the label that neither a loss nor a metric sees


@dataclass(frozen=True)
class Sample:
    """One image and its labels."""

    name: str  # for messages: a file's path, or a scene's seed
    image: np.ndarray  # [H, W, 3] uint8 RGB
    labels: np.ndarray  # [H, W] uint8: class ids 0…C-1, or IGNORE


class Dataset(Protocol):
    """A data set reads its samples when they are asked for, and raises DovitError naming the file where it cannot."""

    class_names: tuple[str, ...] | None
    palette: tuple[tuple[int, int, int], ...] | None

    @property
    def classes(self) -> int | None:
        """How many classes there are; None where nothing says it (a plain folder)."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...
