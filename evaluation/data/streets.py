"""Procedural street scenes as a data set."""

from __future__ import annotations

from dovit.evaluation.data.dataset import Sample
from dovit.runtime.palettes import Colour, palette_for
from dovit.scenes import scene

CLASSES = 19
MEMORY = 1 << 30  # bytes of scenes that are kept once drawn


class Streets:
    """Scenes `first` … `first + count - 1`, (height, width) in size. Those drawn once are kept, up to a gigabyte
    in all."""

    def __init__(self, count: int, size: tuple[int, int], first: int = 0) -> None:
        self.count, self.size, self.first = count, size, first
        names, colours = palette_for("cityscapes", CLASSES)
        self.class_names: tuple[str, ...] | None = names
        self.palette: tuple[Colour, ...] | None = colours
        self.classes = CLASSES
        self._drawn: dict[int, Sample] = {}
        self._most = MEMORY // (4 * size[0] * size[1])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        kept = self._drawn.get(number)
        if kept is not None:
            return kept
        if not 0 <= number < self.count:
            raise IndexError(number)
        seed = self.first + number
        sample = Sample(f"street {seed}", *scene(seed, *self.size))
        if len(self._drawn) < self._most:
            self._drawn[number] = sample
        return sample
