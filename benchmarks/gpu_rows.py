"""The rows of a GPU comparison, and the thresholds by which the graph keeps given counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dovit.benchmarks.measure import paired_ratio
from dovit.runtime.arguments import count_of_share
from dovit.runtime.chain import DecisionResult
from dovit.runtime.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """One of the compared implementations. `run` returns when one image's labels are there; `many(n)` when those of n images are,
    which may overlap. `macs`: the true count per image."""

    name: str
    setting: str  # what is kept, as it was asked for
    kept: tuple[int, ...]
    macs: int
    run: Callable[[], object]
    many: Callable[[int], object]


def row(
    candidate: Candidate,
    seconds: Sequence[float],
    per_image: Sequence[float],
    base: Candidate,
    base_seconds: Sequence[float],
) -> dict[str, Any]:
    """`seconds`: of one image in each round, as `base_seconds` of the baseline; `per_image`: where images may overlap."""
    speedup, ratio = paired_ratio(list(base_seconds), list(seconds)), base.macs / candidate.macs
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 95, 99])
    return {
        "name": candidate.name,
        "setting": candidate.setting,
        "kept": list(candidate.kept),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "images_per_s": 1 / statistics.median(per_image),
        "gmacs": candidate.macs / 1e9,
        "mac_ratio": ratio,
        "speedup": speedup,
        "efficiency": speedup / ratio,
    }


def add_share_of_matrix_rate(rows: Sequence[dict[str, Any]], matrix_tflop_per_s: float) -> None:
    """Add the share of that rate which each row reaches."""
    for one in rows:
        one["of_matrix_rate"] = 2 * one["gmacs"] / one["p50_ms"] / matrix_tflop_per_s  # GFLOP a ms are TFLOP/s


def counts_for(shares: Sequence[float], tokens: int, capacities: Sequence[int]) -> tuple[int, ...]:
    """Tokens to keep for shares of all of them: the capacities that hold so many, one at least. Raises UsageError for rising
    shares."""
    if not shares or not all(0 < share <= 1 for share in shares) or list(shares) != sorted(shares, reverse=True):
        raise UsageError(f"keep {'/'.join(f'{s:g}' for s in shares)}: give falling shares above 0 and at most 1")
    return tuple(min(c for c in capacities if c >= count_of_share(share, tokens, 1)) for share in shares)


def filling_thresholds(
    decided: Sequence[DecisionResult], counts: Sequence[int], capacities: Sequence[int]
) -> tuple[float, ...]:
    """ξ by which the bucketed schedule keeps exactly `counts`, given the decisions of one image that did keep them.

    Each is chosen to keep fewer by itself than the capacity holds, by half of the way to the next smaller one, and the schedule
    fills up with the next tokens in order: the same set, and no rounding error leads to another capacity.
    """
    found = []
    for decision, count in zip(decided, counts, strict=True):
        ascending = np.sort(decision.confidence[0].astype(np.float64))
        if count == len(ascending):
            found.append(1.0)
            continue
        below = max(c for c in capacities if c < count)
        own = (below + count + 1) // 2
        found.append(float((ascending[own - 1] + ascending[own]) / 2))
    return tuple(found)
