"""What a run prints without a terminal, and when validation says little."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from dovit.evaluation.data import open_data
from dovit.evaluation.data.overlap import count_shared
from dovit.runtime.errors import DovitError
from dovit.training.log import Log, read_scores


def test_plain_lines_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Log(tmp_path, 4, 0, quiet=False) as log:
        log.write(1, {"loss": 1.25, "kept": [20.0, 9.6], "lr": 0.1})
        log.write(2, {"loss": 1.0, "kept": [], "lr": 0.1})  # dense
        log.write(3, {"loss": 1.0, "kept": [18.0, 9.0], "lr": 0.1})
        log.write(3, {"mIoU": 40.5, "PA": 80.25, "macs_ratio": 0.5})
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"step 2/4: loss 1\.250, kept 20/10, \S+ s a step, 0 min left", lines[0])
    assert re.fullmatch(r"step 3/4: loss 1\.000, \S+ s a step, 0 min left", lines[1])
    assert lines[2].startswith("step 4/4: loss 1.000, kept 18/9, ")
    assert lines[3:] == ["step 4/4: validation: mIoU 40.500, PA 80.250"]
    assert read_scores(tmp_path, 3) == {"mIoU": 40.5, "PA": 80.25} and read_scores(tmp_path, 2) == {}
    with Log(tmp_path, 4, 0, quiet=True) as log:
        log.write(0, {"loss": 1.0})
    assert capfd.readouterr().err == ""


def test_a_validation_is_no_part_of_a_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But of the time that is left: 4 s for each of 2 steps, and 112 s for a validation, are 60 s a step all in all."""
    now = 0.0
    monkeypatch.setattr("dovit.training.log.time.monotonic", lambda: now)
    with Log(tmp_path, 10, 0, quiet=False) as log:
        now = 8.0
        with log.validating():
            now = 120.0
        log.write(1, {"loss": 1.0})
    assert "step 2/10: loss 1.000, 4 s a step, 8 min left" in capfd.readouterr().err


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A full disk fails at the write, and again when the file is closed, which must not hide what ended the block."""
    sentence = r"log\.jsonl: the disk is full; free some space"
    log = Log(tmp_path, 4, 0, quiet=False)
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(DovitError, match=sentence), log:
        log.write(1, {"loss": 1.25})
    with pytest.raises(KeyError), log:
        with pytest.raises(DovitError, match=sentence):
            log.write(1, {"loss": 1.25})
        raise KeyError
    with pytest.raises(DovitError, match=sentence), log:
        log._file.write("{}")  # goes to the file when that is closed


def test_images_that_both_splits_have(tmp_path: Path) -> None:
    for name in ("images/a.png", "labels/a.png", "images/b.png", "labels/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    folder = [open_data(f"folder:{tmp_path}", split, classes=2) for split in ("train", "val")]
    assert count_shared(*folder) == 2
    size = (32, 32)
    streets = open_data("streets:10", "train", size=size)
    assert count_shared(streets, open_data("streets:10", "val", size=size)) == 0
    assert count_shared(streets, open_data("streets:10@7", "val", size=size)) == 3
    assert count_shared(streets, folder[0]) == 0
