"""Interleaved timing: each round runs every candidate once, so that changes of the machine's speed affect all of them.

The order is shuffled in every round, because a candidate that runs after a light one finds a cooler processor.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each candidate in each of `rounds` rounds, after `warmup` rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates.items())
    shuffle = random.Random(0).shuffle
    for number in range(warmup + rounds):
        shuffle(order)
        for name, run in order:
            start = time.perf_counter()
            run()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def paired_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of one candidate's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
