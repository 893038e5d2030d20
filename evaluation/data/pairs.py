"""A data set of image files with label files, the common base of Cityscapes, ADE20K and plain folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dovit.evaluation.data.dataset import IGNORE, Sample
from dovit.evaluation.data.read import read_pair
from dovit.runtime.errors import DovitError
from dovit.runtime.palettes import Colour

# Where a data set has a class 0 that is none ("other"), as ADE20K: 0 is ignored and the others move down by one.
REDUCE_ZERO = np.array([IGNORE, *range(254), IGNORE], np.uint8)


class NoImagesError(DovitError):
    """The part of a data set that was asked for has no images."""


@dataclass(frozen=True)
class Pair:
    """Two files, how many ids the label file may have (None: any), and what they become (see `read_pair`)."""

    image: Path
    labels: Path
    ids: int | None
    table: np.ndarray | None = None


class Pairs:
    """A Dataset of files, which are read and checked when asked for."""

    def __init__(
        self,
        pairs: Iterable[Pair],
        classes: int | None,
        class_names: tuple[str, ...] | None = None,
        palette: tuple[Colour, ...] | None = None,
    ) -> None:
        self.pairs = tuple(pairs)
        self.class_names = class_names
        self.palette = palette
        self._classes = classes

    @property
    def classes(self) -> int | None:
        """How many classes there are; None where nothing says it."""
        return self._classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> Sample:
        pair = self.pairs[number]
        return read_pair(pair.image, pair.labels, pair.ids, pair.table)


def match_pairs(
    images: Mapping[str, Path], labels: Mapping[str, Path], expected: Callable[[str], Path], fix: str
) -> list[tuple[Path, Path]]:
    """(image, labels) of each key, sorted by key.

    Raises DovitError for images without labels (named by the label file that `expected` says) and for labels without
    images, with `fix` as its last words: what to do about it.
    """
    if alone := sorted(images.keys() - labels.keys()):
        more = f" and for {len(alone) - 1} more" if len(alone) > 1 else ""
        raise DovitError(f"{expected(alone[0])}: no labels for {images[alone[0]]}{more}; {fix}")
    if alone := sorted(labels.keys() - images.keys()):
        more = f" nor for {len(alone) - 1} more" if len(alone) > 1 else ""
        raise DovitError(f"{labels[alone[0]]}: no image for these labels{more}; {fix}")
    return [(images[key], labels[key]) for key in sorted(images)]


def list_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files in `folder` with one of `suffixes`, sorted; none where there is no such folder.

    Hidden files are left out: macOS puts a `._name.png` beside each file that it copies to a foreign disk.
    """
    if not folder.is_dir():
        return []
    wanted = tuple(suffixes)
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in wanted and not p.name.startswith(".")]
