"""Chooses the capacities that pad the fewest tokens, given how many tokens images kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dovit.runtime.errors import UsageError


def mean_fill(counts: np.ndarray, capacities: Sequence[int]) -> float:
    """Mean number of tokens filled up by a decision: its capacity less its kept count.

    `counts` [N+1]: how often n tokens were kept; `capacities` ascending, 0…N. 0.0 where nothing was counted.
    """
    total = int(counts.sum())
    kept = np.arange(len(counts))
    capacity = np.asarray(capacities)[np.searchsorted(capacities, kept)]
    return int(((capacity - kept) * counts).sum()) / total if total else 0.0


def check_buckets(buckets: int, round_to: int) -> None:
    """Raises UsageError for fewer than 2 buckets or a `round_to` below 1."""
    if buckets < 2:
        raise UsageError(f"--buckets {buckets}: give at least 2, because 0 and all tokens are always capacities")
    if round_to < 1:
        raise UsageError(f"--round-to {round_to}: give a number from 1")


def fit_capacities(counts: np.ndarray, buckets: int, round_to: int = 1) -> tuple[int, ...]:
    """At most `buckets` capacities 0 = c0 < … < ck = N with the smallest mean fill; as few as reach it.

    `counts` [N+1]: how often n tokens were kept. With `round_to` all but N are multiples of it, and the best such. In an
    optimum every capacity is a kept count (or 0, or N): one between two counts could be lowered. So this is a shortest
    path over the m distinct counts: cost[b, j] is the least fill of all counts up to the j-th with a capacity there
    and b others. O(buckets · m²). Raises UsageError as check_buckets.
    """
    check_buckets(buckets, round_to)
    tokens = len(counts) - 1
    seen = np.flatnonzero(counts)
    rounded = np.minimum(-(-seen // round_to) * round_to, tokens)
    places = np.unique(np.concatenate([[0, tokens], rounded]))  # where a capacity may lie
    upto = np.cumsum(counts)[places]  # how often at most so many were kept …
    summed = np.cumsum(counts * np.arange(tokens + 1))[places]  # … and their sum
    most = min(buckets, len(places))
    unreached = np.iinfo(np.int64).max // 4
    cost = np.full((most, len(places)), unreached, np.int64)
    before = np.zeros((most, len(places)), np.int64)
    cost[0, 0] = 0
    for j in range(1, len(places)):
        step = places[j] * (upto[j] - upto[:j]) - (summed[j] - summed[:j])  # from a capacity at i to the next at j
        ways = cost[:-1, :j] + step
        before[1:, j] = ways.argmin(axis=1)
        cost[1:, j] = np.minimum(ways.min(axis=1), unreached)
    number = int(cost[:, -1].argmin())  # the first: no more capacities than it takes
    chosen, j = [tokens], len(places) - 1
    while number:
        j = int(before[number, j])
        chosen.append(int(places[j]))
        number -= 1
    return tuple(reversed(chosen))


def cross_validated_fill(folds: np.ndarray, buckets: int, round_to: int = 1) -> float | None:
    """Mean fill on images that the capacities were not fitted to: each fold's with the capacities of the others.

    `folds` [F, N+1]: counts as above, in groups of images. None where fewer than two groups have any.
    """
    full = [fold for fold in folds if fold.any()]
    if len(full) < 2:
        return None
    everything = np.sum(full, axis=0)
    filled = sum(mean_fill(f, fit_capacities(everything - f, buckets, round_to)) * int(f.sum()) for f in full)
    return filled / int(everything.sum())
