"""A histogram of confidences, and the threshold ξ that keeps a given number of tokens."""

from __future__ import annotations

import numpy as np

_HALF = np.float32(0.5).view(np.uint32)
_COARSE = np.uint32(0xFF)  # below ½ the last 8 bits of a float32 are dropped
_PENDING = 1 << 20  # values that wait before they are merged


class Confidences:
    """Distinct confidences and their counts.

    Confidences crowd just below 1, and ξ is compared in float32, so from ½ upwards every float32 is counted by itself;
    below, 2⁻¹⁵ relative is fine enough. That bounds the memory: at most 2²³ + 2¹⁵ an octave distinct values of 12
    bytes, about 100 MB however many images there are (and as much again while merging).
    """

    def __init__(self) -> None:
        self.nans = 0  # a NaN is kept at any ξ
        self._values = np.zeros(0, np.float32)  # ascending; below ½ the lower edge of a bin
        self._counts = np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._waiting = 0

    def add(self, confidence: np.ndarray) -> None:
        """Count `confidence`, float32 of any shape, within [0, 1] or NaN."""
        flat = confidence.astype(np.float32, copy=False).ravel()
        known = flat[~np.isnan(flat)]
        self.nans += len(flat) - len(known)
        bits = known.view(np.uint32)
        self._pending.append(np.where(bits < _HALF, bits & ~_COARSE, bits).view(np.float32))
        self._waiting += len(known)
        if self._waiting > max(_PENDING, len(self._values)):
            self._merge()

    @property
    def total(self) -> int:
        """Confidences counted, NaNs included."""
        return self.nans + int(self._merge()[1].sum())

    def threshold(self, keep: float) -> tuple[float, int]:
        """The ξ that keeps (q ≤ ξ, or NaN) as nearly `keep` of the counted tokens as they allow, and how many it keeps.

        Equal confidences stay or stop together. ξ lies midway between two confidences, so that rounding on another
        machine turns no token; it is 0 or 1 where all of them stop or stay. It is the shortest decimal number that is
        that float32.
        """
        values, counts = self._merge()
        kept = self.nans + np.concatenate([[0], np.cumsum(counts)])
        number = int(np.abs(kept - keep).argmin())
        return self._below(values, number), int(kept[number])

    def between(self, low: float, high: float, count: int) -> list[float]:
        """Up to `count` ξ strictly between `low` and `high`, ascending: at even shares of the confidences there, or
        evenly spaced where there are none."""
        values, counts = self._merge()
        first, last = np.searchsorted(values, np.array([low, high], np.float32), side="right")
        kept = self.nans + np.concatenate([[0], np.cumsum(counts)])
        found = {self.threshold(k)[0] for k in np.linspace(kept[first], kept[last], count + 2)[1:-1]}
        inside = {x for x in found if low < x < high}
        if not inside:
            inside = {shortest(np.float32(x)) for x in np.linspace(low, high, count + 2)[1:-1]}
        return sorted(x for x in inside if low < x < high)

    def equal_at(self, threshold: float) -> tuple[float, int]:
        """The confidence next to ξ (on either side) that most tokens share, and how many do: why a share was missed."""
        values, counts = self._merge()
        if not len(values):
            return threshold, 0
        place = int(np.searchsorted(values, np.float32(threshold), side="right"))
        near = [k for k in (place - 1, place) if 0 <= k < len(values)]
        most = max(near, key=lambda k: int(counts[k]))
        return float(values[most]), int(counts[most])

    def _below(self, values: np.ndarray, number: int) -> float:
        """ξ that keeps `values[:number]` and stops the others."""
        if number == 0:
            return 0.0
        if number == len(values):
            return 1.0
        lower, upper = values[number - 1 : number + 1]
        if lower < 0.5:  # the upper edge of its bin: all of the bin stays
            lower = (lower.view(np.uint32) | _COARSE).view(np.float32)
        middle = np.float32((float(lower) + float(upper)) / 2)
        return shortest(middle if middle < upper else lower)

    def _merge(self) -> tuple[np.ndarray, np.ndarray]:
        if self._pending:
            values, counts = np.unique(np.concatenate(self._pending), return_counts=True)
            both, place = np.unique(np.concatenate([self._values, values]), return_inverse=True)
            total = np.zeros(len(both), np.int64)
            np.add.at(total, place, np.concatenate([self._counts, counts]))
            self._values, self._counts = both, total
            self._pending, self._waiting = [], 0
        return self._values, self._counts


def shortest(value: np.float32) -> float:
    """The number with the fewest digits that is `value` in float32: 0.985 and not 0.985000014305."""
    return float(str(value))
