"""Which tokens stop wrongly: those whose patch would have had another label, had no token stopped.

A patch's label is the most frequent one among its pixels. Edges are those of the labels without token pass: a patch that has
another label beside it, also diagonally, has distance 1 from an edge, its neighbours inside the region 2, and so on. With
`keep_ratio` the model's input is padded: patches that the image does not reach have no label and do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from dovit.evaluation.segmenter import Setting
from dovit.runtime.cli.output import escaped, new_table, print_table
from dovit.runtime.result import Result

FARTHEST = 4  # this distance from an edge and any larger one are counted together


class StoppedTokens:
    """Counts the stopped tokens of many images, and among them the wrong ones, by decision, class and distance from an edge.

    Of one image each in mode whole."""

    def __init__(self, classes: int, decisions: int, size: tuple[int, int]) -> None:
        """`size`: the model's input, in pixels."""
        self.size = size
        self.counts = np.zeros((decisions, classes, FARTHEST, 2), np.int64)  # the last: right, wrong

    def add(self, result: Result, without: Result) -> None:
        """Count one image's `result` beside that `without` token pass (ξ = 1). The classes are those of the latter."""
        patch = self.size[0] // result.keep_maps.shape[1]
        filled, classes = result.filled or self.size, self.counts.shape[1]
        wanted = patch_labels(without.labels, filled, patch, classes)
        wrong = patch_labels(result.labels, filled, patch, classes) != wanted
        distance = distance_from_edge(wanted)
        height, width = wanted.shape
        before = np.ones(wanted.shape, bool)
        for decision, kept in enumerate(result.keep_maps[:, :height, :width]):
            stopped = before & ~kept
            places = wanted[stopped], distance[stopped] - 1, wrong[stopped].astype(np.int64)
            np.add.at(self.counts[decision], places, 1)
            before = kept

    def by_decision(self) -> np.ndarray:
        """[D, 2]: stopped tokens that are right and wrong."""
        return self.counts.sum(axis=(1, 2))

    def by_class(self) -> np.ndarray:
        """[C, 2]"""
        return self.counts.sum(axis=(0, 2))

    def by_distance(self) -> np.ndarray:
        """[FARTHEST, 2], from distance 1 on."""
        return self.counts.sum(axis=(0, 1))

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Stopped tokens and wrong ones among them, in each grouping."""

        def told(right_and_wrong: np.ndarray) -> dict[str, int]:
            return {"stopped": int(right_and_wrong.sum()), "wrong": int(right_and_wrong[1])}

        return {
            "decisions": [told(row) for row in self.by_decision()],
            "classes": {name: told(row) for name, row in zip(names, self.by_class(), strict=True)},
            "distances": {_distance(n): told(row) for n, row in enumerate(self.by_distance(), start=1)},
        }


class StoppedBySetting:
    """The same for several settings of one segmenter, beside the one among them that stops no token.

    Results come in any order, but all of an image's before the next image's."""

    def __init__(self, settings: Sequence[Setting], classes: int, size: tuple[int, int]) -> None:
        """`size`: the model's input, in pixels."""
        self.settings = settings
        self.counts = [StoppedTokens(classes, len(setting.thresholds), size) for setting in settings]
        self._dense = next(place for place, setting in enumerate(settings) if setting.stops_nothing)
        self._results: dict[int, Result] = {}

    def add(self, place: int, result: Result) -> None:
        """The result of setting number `place`."""
        self._results[place] = result
        if len(self._results) == len(self.settings):
            for other, found in self._results.items():
                self.counts[other].add(found, self._results[self._dense])
            self._results = {}

    def print(self, console: Console, names: Sequence[str]) -> None:
        """A table for each setting that stops tokens."""
        for setting, counts in zip(self.settings, self.counts, strict=True):
            if setting.stops_nothing:
                continue
            table = new_table("", "stopped", "wrong", "share of stopped\nthat is wrong", "share of\nall wrong")
            told, total = counts.as_json(names), int(counts.by_decision()[:, 1].sum())
            rows = [(f"decision {number}", row) for number, row in enumerate(told["decisions"], start=1)]
            rows += [(escaped(name), row) for name, row in told["classes"].items() if row["stopped"]]
            rows += [(f"distance {number} from an edge", row) for number, row in told["distances"].items()]
            for name, row in rows:
                share = f"{row['wrong'] / row['stopped']:.2%}" if row["stopped"] else "–"
                of_all = f"{row['wrong'] / total:.1%}" if total else "–"
                table.add_row(name, str(row["stopped"]), str(row["wrong"]), share, of_all)
            print_table(console, f"Stopped tokens whose label would have been another, {setting.name}", table)


def patch_labels(labels: np.ndarray, filled: tuple[int, int], patch: int, classes: int) -> np.ndarray:
    """[h, w] int64: the most frequent class in each patch, the lowest of equals, of an image that fills so many pixels of the
    model's input from the top left. labels [H, W]: the image's, at its own size."""
    rows, down = _spread(labels.shape[0], filled[0], patch)
    columns, across = _spread(labels.shape[1], filled[1], patch)
    height, width = int(down[-1]) + 1, int(across[-1]) + 1
    found = labels[rows[:, None], columns].astype(np.int64)
    place = (down[:, None] * width + across) * classes + found
    counts = np.bincount(place.ravel(), minlength=height * width * classes)
    return counts.reshape(height, width, classes).argmax(axis=2)


def _spread(length: int, filled: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (or columns) of labels and the patches they lie in: each at least once, as an image may be smaller than the input."""
    many = max(length, filled)
    at = np.arange(many)
    return at * length // many, at * filled // many // patch


def distance_from_edge(labels: np.ndarray) -> np.ndarray:
    """[h, w] int64, 1 … FARTHEST: how many steps, diagonal ones too, from each patch to the first of another label."""
    distance = np.full(labels.shape, FARTHEST, np.int64)
    height, width = labels.shape
    for reach in range(FARTHEST - 1, 0, -1):
        padded = np.pad(labels, reach, mode="edge")
        for down in range(2 * reach + 1):
            for across in range(2 * reach + 1):
                other = padded[down : down + height, across : across + width] != labels
                distance[other] = reach
    return distance


def _distance(number: int) -> str:
    return f"{number} or more" if number == FARTHEST else str(number)
