"""Tables of several seeds, from files as dovit-eval writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dovit.benchmarks.camvid_tables import (
    PARTS,
    ROUNDS,
    ROWS,
    read_runs,
    rounds_table,
    speed_table,
    stopped_tables,
    table,
)
from dovit.runtime.errors import DovitError

RATIOS = ("macs_ratio_paper", "macs_ratio_true")


def written(folder: Path, name: str, setting: str, miou: float, kept: list[int]) -> None:
    content: dict[str, Any] = {
        "name": setting,
        "mIoU": miou,
        "PA": 90.0,
        "mPA": 70.0,
        "kept": kept,
        "macs_ratio_paper": 0.5,
        "macs_ratio_true": 0.25,
        "classes": {},
    }
    (folder / f"{name}.json").write_text(json.dumps({"settings": [content]}))


def test_seeds_share_a_row(tmp_path: Path) -> None:
    written(tmp_path, "dense", "dense", 61.6, [])
    written(tmp_path, "dovit-0", "ξ = 0.95", 56.0, [500, 300])
    written(tmp_path, "dovit-1", "ξ = 0.95", 54.0, [400, 100])
    (tmp_path / "other.json").write_text('{"not": "of dovit-eval"}')
    runs = read_runs(tmp_path)
    assert table(runs, ROWS)[2:] == [
        "| dense | 1 | 61.6 | 90.0 | 70.0 | all | 50 % | 25 % |",
        "| DoViT, ξ = 0.95 | 2 | 55.0 (54.0–56.0) | 90.0 (90.0–90.0) | 70.0 (70.0–70.0) | 450/200 "
        "| 50 (50–50) % | 25 (25–25) % |",
    ]
    assert len(table(runs, PARTS)) == 3  # both (DoViT) alone
    assert [one["seed"] for one in runs["dovit"]["ξ = 0.95"]] == [0, 1]


def test_a_row_for_each_round(tmp_path: Path) -> None:
    def swept(name: str, *miou: float) -> None:
        settings = [
            {"name": xi, "mIoU": one, "macs_ratio_paper": 0.5 + n / 10}
            for n, (xi, one) in enumerate(zip(ROUNDS, miou, strict=True))
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps({"settings": settings}))

    swept("dovit-0", 60, 61, 62)
    assert rounds_table(read_runs(tmp_path)) == []  # one round is what the other tables show
    swept("dovit-1", 62, 63, 65)
    swept("dovit2-0", 64, 65, 66)
    swept("dovit4-0", 70, 70, 70)  # a round before it is missing
    for name, miou in (("control-0", 66.0), ("control-1", 67.0)):
        written(tmp_path, name, "dense", miou, [])
    assert rounds_table(read_runs(tmp_path)) == [
        "| rounds | seeds | dense | DoViT, ξ = 0.9 | MACs, paper | DoViT, ξ = 0.95 | MACs, paper "
        "| DoViT, ξ = 0.98 | MACs, paper |",
        "| --- " * 9 + "|",
        "| 1 | 2 | 66.5 (66.0–67.0) | 61.0 (60.0–62.0) | 50 (50–50) % | 62.0 (61.0–63.0) | 60 (60–60) % "
        "| 63.5 (62.0–65.0) | 70 (70–70) % |",
        "| 2 | 1 | – | 64.0 | 50 % | 65.0 | 60 % | 66.0 | 70 % |",
    ]


def test_a_row_has_the_numbers_of_its_own_setting(tmp_path: Path) -> None:
    """A sweep begins with another ξ than that of the table's rows."""
    for run in ("nothing", "merging", "cells"):
        settings = [
            {"name": f"ξ = {xi}", "mIoU": miou, "PA": 90.0, "mPA": 70.0, "kept": [9], **dict.fromkeys(RATIOS, 0.5)}
            for xi, miou in ((0.8, 40.0), (0.95, 60.0))
        ]
        (tmp_path / f"{run}-0.json").write_text(json.dumps({"settings": settings}))
    written(tmp_path, "nothing-1", "ξ = 0.95", 62.0, [9])  # alone, as a checkpoint is evaluated at its own ξ
    rows = table(read_runs(tmp_path), PARTS)[2:]
    assert [row.split(" | ")[2] for row in rows] == ["61.0 (60.0–62.0)", "60.0", "60.0"]


@pytest.mark.parametrize("name", ["dense", "control", "dynamicvit", "settled", "further"])
def test_several_settings_where_a_table_shows_one(name: str, tmp_path: Path) -> None:
    written(tmp_path, f"{name}-0", "ξ = 0.8", 50.0, [9])
    written(tmp_path, f"{name}-1", "ξ = 0.95", 60.0, [9])
    with pytest.raises(
        DovitError, match=rf"{name}: its evaluations have 2 settings \(ξ = 0\.8, ξ = 0\.95\), and the table"
    ):
        table(read_runs(tmp_path), ROWS)


def test_several_settings_of_a_rounds_control(tmp_path: Path) -> None:
    runs = {"dovit": {name: [] for name in ROUNDS}, "control": {"dense": [], "ξ = 0.8": []}}
    with pytest.raises(DovitError, match="control: its evaluations have 2 settings"):
        rounds_table(runs)


def stopped(classes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    rows = {name: {"stopped": count, "wrong": wrong} for name, (wrong, count) in classes.items()}
    total = {key: sum(row[key] for row in rows.values()) for key in ("stopped", "wrong")}
    return {"decisions": [total], "classes": rows, "distances": {"1": total, "2": {"stopped": 0, "wrong": 0}}}


def test_stopped_tokens_are_summed_over_the_seeds(tmp_path: Path) -> None:
    for seed, road in ((0, (3, 20)), (1, (1, 30))):
        settings = [
            {"name": "ξ = 0.8", "stopped": stopped({"sky": (1, 40), "road": road, "car": (0, 0)})},
            {"name": "ξ = 1", "stopped": stopped({"sky": (0, 0), "road": (0, 0), "car": (0, 0)})},
        ]
        (tmp_path / f"dovit-{seed}.json").write_text(json.dumps({"settings": settings}))
    written(tmp_path, "dense", "dense", 61.6, [])  # not evaluated with --stopped
    [lines] = stopped_tables(read_runs(tmp_path))
    assert lines == [
        "| dovit: stopped wrongly, of all stopped | ξ = 0.8 |",
        "| --- | --- |",
        "| decision 1 | 6 of 130 (4.62 %) |",
        "| class sky | 2 of 80 (2.50 %) |",
        "| class road | 4 of 50 (8.00 %) |",
        "| distance from an edge 1 | 6 of 130 (4.62 %) |",
        "",
        "Most of the 6 at ξ = 0.8: decision 1 (100 %), class road (67 %), distance from an edge 1 (100 %).",
    ]


def test_speed_over_the_dense_model() -> None:
    def row(name: str, macs: float, speedup: float, kept: list[int], counts: list[int] | None = None) -> dict[str, Any]:
        shares = {"macs_ratio_paper": macs, "macs_ratio_true": macs}
        times = {"latency_ms_median": 40 / speedup, "speedup_median": speedup}
        return {"name": name, "mIoU": 56.9, "kept": kept, "counts": counts, **shares, **times}

    settings = [row("ξ = 0.95", 0.5, 1.8, [50, 30]), row("fixed, as ξ = 0.95", 0.5, 1.9, [50, 30], [50, 30])]
    assert speed_table({"dense": row("dense, one graph", 1, 1, []), "settings": settings})[2:] == [
        "| dense, one graph | 56.9 | all | 100 % | 40.0 | 1.00 | 1.00 | 1.00 |",
        "| ξ = 0.95 | 56.9 | 50/30 | 50 % | 22.2 | 2.00 | 1.80 | 0.90 |",
    ]


def test_a_folder_without_evaluations(tmp_path: Path) -> None:
    with pytest.raises(DovitError, match=r"holds no JSON of dovit-eval: run benchmarks/camvid\.sh"):
        read_runs(tmp_path)
