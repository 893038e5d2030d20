"""Tables of several seeds, from files as dovit-eval writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dovit.benchmarks.camvid_tables import PARTS, ROWS, read_runs, table
from dovit.runtime.errors import DovitError


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


def test_a_folder_without_evaluations(tmp_path: Path) -> None:
    with pytest.raises(DovitError, match=r"holds no JSON of dovit-eval: run benchmarks/camvid\.sh"):
        read_runs(tmp_path)
