"""dovit-bench: figures that fit together, on a small bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle
from models import randomised, small_config

from dovit.benchmarks.chain import bench
from dovit.benchmarks.measure import interleaved, paired_ratio
from dovit.runtime.errors import UsageError


def test_rows_fit_together(tmp_path: Path) -> None:
    make_bundle(randomised(small_config()), tmp_path)
    report = bench(tmp_path, None, (0.5, 0.25), 3, None)
    dense, full, own, kept = report["rows"]
    assert kept["kept"] == [12, 6] and full["kept"] == [24, 24] and dense["kept"] == []
    assert dense["gmacs_true"] < full["gmacs_true"], "the chain has heads on top"
    assert kept["gmacs_true"] < own["gmacs_true"] or own["kept"] <= [12, 6]
    for row in report["rows"]:
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["mac_ratio"])
    with pytest.raises(UsageError, match="falling shares"):
        bench(tmp_path, None, (0.25, 0.5), 1, None)


def test_interleaving_runs_everyone_in_every_round() -> None:
    calls: list[str] = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=4, warmup=1)
    assert all(sorted(calls[k : k + 3]) == ["a", "b", "c"] for k in range(0, 15, 3))
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys("abc", 4)
    assert paired_ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == 2.0
