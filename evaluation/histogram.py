"""Approximate quantiles of any number of values, in fixed memory."""

from __future__ import annotations

import math

import numpy as np

LOWEST, STEP = 1e-6, 1.01  # the first bin's edge, and the ratio of a bin's edges: quantiles are exact to 1 %
BINS = 3000  # up to 9 million


class LogHistogram:
    """A histogram of positive numbers with bins of equal ratio."""

    def __init__(self) -> None:
        self._bins = np.zeros(BINS, np.int64)
        self._count = 0

    def add(self, value: float) -> None:
        """Count one."""
        place = math.log(max(value, LOWEST) / LOWEST) / math.log(STEP)
        self._bins[min(int(place), BINS - 1)] += 1
        self._count += 1

    def quantile(self, share: float) -> float:
        """The middle of the bin that has it; NaN of none."""
        if not self._count:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self._bins), max(share * self._count, 1)))
        return LOWEST * STEP ** (place + 0.5)
