"""The measurements of one setting of ξ: tokens kept, cost, and agreement with the dense model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.result import Result

Count = Literal["paper", "true"]
COUNTS: tuple[Count, Count] = ("paper", "true")
FOLDS = 5  # groups of images, so that what is fitted to some can be tried on the others


@dataclass(frozen=True)
class Point:
    """Means over windows (an image in mode whole, a window of one in mode slide); disagreement over all pixels."""

    thresholds: tuple[float, ...]
    tokens: int  # N
    kept: tuple[float, ...]  # tokens kept after each decision
    kept_error: tuple[
        float, ...
    ]  # standard error of these means, from the differences between images; NaN for one image
    macs: tuple[float, float]  # MACs / dense MACs in the paper's and the true count
    disagreement: float  # share of the pixels whose label is not the dense model's
    counts: (
        np.ndarray
    )  # [FOLDS, N+1] int64: how many of the decisions made kept n tokens; image k is in fold k mod FOLDS

    def ratio(self, count: Count) -> float:
        """MACs / dense MACs."""
        return self.macs[COUNTS.index(count)]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all N tokens, kept after each decision."""
        return tuple(k / self.tokens for k in self.kept)

    def as_json(self) -> dict[str, Any]:
        """Everything but the distribution of counts."""
        errors = [None if np.isnan(e) else e for e in self.kept_error]
        return {
            "thresholds": list(self.thresholds),
            "kept": list(self.kept),
            "kept_share": list(self.shares),
            "kept_standard_error": errors,
            "macs_ratio_paper": self.macs[0],
            "macs_ratio_true": self.macs[1],
            "disagreement": self.disagreement,
        }


class PointAccumulator:
    """Accumulates the results of images into a Point."""

    def __init__(self, manifest: Manifest, thresholds: tuple[float, ...]) -> None:
        self.thresholds = thresholds
        self._manifest = manifest
        self._counts = np.zeros((FOLDS, manifest.tokens + 1), np.int64)
        self._kept = np.zeros(len(manifest.decisions), np.int64)
        self._image_means = np.zeros((2, len(manifest.decisions)))  # sum and sum of squares
        self._macs = [0, 0]
        self._images = self._windows = self._pixels = self._differ = 0

    def add(self, result: Result, dense: Result) -> None:
        """Count one image: its result at these ξ, and the dense one."""
        self._differ += int(np.count_nonzero(result.labels != dense.labels))
        self._pixels += result.labels.size
        kepts = [w.kept for w in result.windows] or [result.kept]
        for kept in kepts:
            for which, macs in enumerate(self._manifest.macs(kept)):
                self._macs[which] += macs
            for count in kept:
                self._counts[self._images % FOLDS, count] += 1
                if count == 0:  # the later decisions are not made
                    break
        mean = np.mean(kepts, axis=0)
        self._kept += np.sum(kepts, axis=0)
        self._image_means += np.stack([mean, mean**2])
        self._windows += len(kepts)
        self._images += 1

    def point(self) -> Point:
        """The means; at least one image must have been added."""
        images, windows = self._images, self._windows
        squares = self._image_means[1] / images - (self._image_means[0] / images) ** 2
        error = np.sqrt(np.maximum(squares, 0) / (images - 1)) if images > 1 else squares * np.nan
        paper, true = (
            total / windows / dense for total, dense in zip(self._macs, self._manifest.dense_macs, strict=True)
        )
        return Point(
            self.thresholds,
            self._manifest.tokens,
            tuple((self._kept / windows).tolist()),
            tuple(error.tolist()),
            (paper, true),
            self._differ / self._pixels,
            self._counts,
        )
