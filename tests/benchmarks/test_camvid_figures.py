"""Figure 6 from records as dovit-eval writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dovit.benchmarks.camvid_figures import blocks_table, kept_table, main, read_images, records_of
from dovit.runtime.errors import DovitError

TOKENS, LAYER, DECODER = 100, 10**9, 10**8  # MACs of a part at all tokens, and of the decoder


def setting(name: str, kept: tuple[int, ...], accuracy: float | None) -> dict[str, Any]:
    tokens = [TOKENS, *kept]
    macs = [LAYER * count // TOKENS for count in tokens] + [DECODER]
    return {"name": name, "tokens": tokens, "macs_paper": macs, "macs_true": macs, "PA": accuracy, "latency_ms": 1.0}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """The second of three images is the easiest, the third the hardest; of the first nothing is labelled."""
    kept = [(50, 30), (20, 10), (80, 60)]
    with (tmp_path / "images-0.jsonl").open("w") as file:
        for number, (counts, accuracy) in enumerate(zip(kept, (None, 96.0, 84.0), strict=True)):
            settings = [setting("ξ = 0.95", counts, accuracy), setting("ξ = 1", (TOKENS, TOKENS), 90.0)]
            file.write(json.dumps({"name": f"/data/images/{number}.jpg", "settings": settings}) + "\n")
    return tmp_path


def test_tables(records: Path) -> None:
    images = read_images(records / "images-0.jsonl", "ξ = 0.95")
    assert blocks_table(images)[2:] == [
        "| easiest, 1 | 100 (1.00) | 20 (0.20) | 10 (0.10) | 45 % | 96.0 |",
        "| mean | 100 (1.00) | 50 (0.50) | 33 (0.33) | 62 % | 90.0 |",
        "| hardest, 2 | 100 (1.00) | 80 (0.80) | 60 (0.60) | 81 % | 84.0 |",
        "| without token pass | 100 (1.00) | 100 (1.00) | 100 (1.00) | 100 % |  |",
    ]
    assert kept_table(images)[2:] == [
        "| kept after decision 1 | 20 | 26 | 50 | 74 | 80 |",
        "| kept after decision 2 | 10 | 14 | 30 | 54 | 60 |",
        "| MACs, paper | 45 % | 48 % | 61 % | 77 % | 81 % |",
    ]


def test_the_command_draws_and_writes(
    records: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["camvid_figures", str(records), "--json", str(records / "blocks.json")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "| easiest, 1 |" in capsys.readouterr().out
    assert (records / "blocks.svg").read_text().lstrip().startswith("<?xml")
    told = json.loads((records / "blocks.json").read_text())
    assert told["easiest"]["name"] == "1" and told["hardest"]["tokens"] == [100, 80, 60]
    assert np.array_equal(told["kept"], [[50, 30], [20, 10], [80, 60]])


def test_the_first_seed_of_this_model(records: Path) -> None:
    """By number, and none of another model's records, which come first by name."""
    for name in ("images-tuned-0", "images-10", "images-3", "images-2-before"):
        (records / f"{name}.jsonl").write_text("")
    assert records_of(records, None) == records / "images-0.jsonl"
    (records / "images-0.jsonl").unlink()
    assert records_of(records, None) == records / "images-3.jsonl"
    assert records_of(records, 10) == records / "images-10.jsonl"
    with pytest.raises(DovitError, match=r"holds no images-7\.jsonl of dovit-eval --per-image"):
        records_of(records, 7)
    for seed in (3, 10):
        (records / f"images-{seed}.jsonl").unlink()
    for folder in (records, records / "missing"):
        with pytest.raises(DovitError, match=r"holds no images-NUMBER\.jsonl of dovit-eval --per-image"):
            records_of(folder, None)


def test_what_is_missing_is_named(records: Path) -> None:
    with pytest.raises(DovitError, match=r"has no 'ξ = 0.5': its sweep has ξ = 0.95, ξ = 1"):
        read_images(records / "images-0.jsonl", "ξ = 0.5")
    (records / "images-0.jsonl").write_text("")
    with pytest.raises(DovitError, match="has no images"):
        read_images(records / "images-0.jsonl", "ξ = 0.95")
