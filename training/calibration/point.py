"""One setting of ξ, measured: tokens kept, cost, and agreement with the dense model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.result import Result

Count = Literal["paper", "true"]
COUNTS: tuple[Count, Count] = ("paper", "true")


@dataclass(frozen=True)
class Point:
    """Means over windows (an image, or a window of mode slide); disagreement over all pixels of all images."""

    thresholds: tuple[float, ...]
    tokens: int  # N
    kept: tuple[float, ...]  # tokens kept after each decision
    kept_error: tuple[float, ...]  # standard error of these means; NaN for a single window
    macs: tuple[float, float]  # MACs / dense MACs in the paper's and the true count
    disagreement: float  # share of the pixels whose label is not the dense model's
    counts: np.ndarray  # [D, N+1] int64: in how many windows decision d was made and kept n tokens

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
            "thresholds": list(self.thresholds), "kept": list(self.kept), "kept_share": list(self.shares),
            "kept_standard_error": errors, "macs_ratio_paper": self.macs[0], "macs_ratio_true": self.macs[1],
            "disagreement": self.disagreement,
        }  # fmt: skip


class Tally:
    """Adds up what becomes a Point."""

    def __init__(self, manifest: Manifest, thresholds: tuple[float, ...]) -> None:
        self.thresholds = thresholds
        self._manifest = manifest
        self._counts = np.zeros((len(manifest.decisions), manifest.tokens + 1), np.int64)
        self._kept = np.zeros((2, len(manifest.decisions)), np.int64)  # sum and sum of squares
        self._macs = [0, 0]
        self._windows = self._pixels = self._differ = 0

    def add(self, result: Result, dense: Result) -> None:
        """Count one image: its result at these ξ, and the dense one."""
        self._differ += int(np.count_nonzero(result.labels != dense.labels))
        self._pixels += result.labels.size
        for kept in [w.result.kept for w in result.windows] or [result.kept]:
            self._windows += 1
            counts = np.asarray(kept, np.int64)
            self._kept += np.stack([counts, counts**2])
            for total, macs in enumerate(self._manifest.macs(kept)):
                self._macs[total] += macs
            for decision, count in enumerate(kept):
                self._counts[decision, count] += 1
                if count == 0:  # the later decisions are not made
                    break

    def point(self) -> Point:
        """The means; at least one image must have been added."""
        n = self._windows
        mean = self._kept[0] / n
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.maximum(self._kept[1] / n - mean**2, 0) / np.float64(n - 1)
        paper, true = (total / n / dense for total, dense in zip(self._macs, self._manifest.dense_macs, strict=True))
        return Point(
            self.thresholds, self._manifest.tokens, tuple(mean.tolist()),
            tuple(np.sqrt(variance).tolist()), (paper, true), self._differ / self._pixels, self._counts,
        )  # fmt: skip
