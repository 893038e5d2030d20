"""Errors in the middle of a run: the steps before are saved, and the sentence says truly how to go on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from street_runs import street_run, weights

from dovit.evaluation.data.loader import _order
from dovit.export.checkpoints import load_model
from dovit.export.checkpoints.own import write_safetensors, write_torch
from dovit.runtime.errors import DovitError, OutputError
from dovit.training.log import read_scores
from dovit.training.settings import Settings

SETTINGS = Settings(steps=4, batch=1, optimiser="adamw")
RNG = np.random.default_rng(3)
GO_ON = "go on with the same command and --resume"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images with labels."""
    for number in range(4):
        for name, shape, most in (("images", (40, 48, 3), 256), ("labels", (40, 48), 19)):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            pixels = RNG.integers(0, most, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def labels_of_step(data: Path, step: int) -> Path:
    return data / "labels" / f"{_order(0, 0, 4)[step]}.png"


@contextmanager
def wrong(labels: Path) -> Iterator[None]:
    """A label file that has a value which is no class."""
    good = labels.read_bytes()
    Image.fromarray(np.full((40, 48), 40, np.uint8)).save(labels)
    yield
    labels.write_bytes(good)


def go(out: Path, checkpoint: Path, data: Path, **more: Any) -> None:
    street_run(out, checkpoint, SETTINGS, data=str(data), **{"validation": None, **more})


def steps_saved(out: Path) -> int:
    return int(torch.load(out / "last.pt", weights_only=True)["step"])


@pytest.mark.parametrize(("save_every", "workers"), [(1000, 0), (1, 2)])
def test_a_bad_file_loses_no_step(tmp_path: Path, checkpoint: Path, data: Path, save_every: int, workers: int) -> None:
    go(tmp_path / "alone", checkpoint, data)
    sentence = rf"label value 40 is neither .*; .*last\.pt has 2 of 4 steps: {GO_ON}"
    out = tmp_path / "run"
    with wrong(labels_of_step(data, 2)), pytest.raises(DovitError, match=sentence):
        go(out, checkpoint, data, save_every=save_every, workers=workers)
    assert steps_saved(out) == 2 and not (out / "model.safetensors").exists()
    go(out, checkpoint, data, resume=True)
    assert (out / "log.jsonl").read_text() == (tmp_path / "alone" / "log.jsonl").read_text()
    a, b = (weights(folder / "model.safetensors") for folder in (tmp_path / "alone", out))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_bad_file_in_the_first_step_leaves_nothing_to_clear_up(tmp_path: Path, checkpoint: Path, data: Path) -> None:
    out = tmp_path / "run"
    with wrong(labels_of_step(data, 0)), pytest.raises(DovitError, match=r"the number of classes$"):
        go(out, checkpoint, data)
    assert not out.exists()
    go(out, checkpoint, data)


def test_a_bad_file_to_validate_on(tmp_path: Path, checkpoint: Path, data: Path) -> None:
    """It is met after the state of that step is saved, and the validation is repeated."""
    other = tmp_path / "val"
    other.mkdir()
    for name in ("images", "labels"):
        (other / name).symlink_to(data / name)
    out = tmp_path / "run"
    with wrong(data / "labels" / "0.png"):
        arguments = {"validation": str(other), "validate_every": 1}
        with pytest.raises(DovitError, match=r"label value 40 .*last\.pt has \d of 4 steps: go on"):
            go(out, checkpoint, data, **arguments)
    go(out, checkpoint, data, resume=True, **arguments)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "mIoU" in line] == [0, 1, 2, 3]


def test_weights_that_are_no_numbers_replace_no_state(
    tmp_path: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with wrong(labels_of_step(data, 1)), pytest.raises(DovitError):
        go(out, checkpoint, data)
    monkeypatch.setattr("dovit.training.loop.learning_rate", lambda *_, **__: float("nan"))
    sentence = rf"label value 40 .*; weights are no longer finite after 2 steps: .*last\.pt has 1 of 4 steps: {GO_ON}"
    with wrong(labels_of_step(data, 2)), pytest.raises(DovitError, match=sentence):
        go(out, checkpoint, data, resume=True, log_every=100)
    assert steps_saved(out) == 1


def test_of_two_processes_all_end_and_the_first_one_saves(tmp_path: Path, checkpoint: Path, data: Path) -> None:
    """The file is the second process's: the first one would wait for it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "dovit.training.cli.train", "--ckpt", str(checkpoint), "--data", str(data), "--val", "none"]
    command += ["--steps", "4", "--batch", "1", "--log-every", "1", "--workers", "0", "--device", "cpu"]
    command += ["--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with wrong(labels_of_step(data, 3)):  # the place of process 1 in step 1
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode and "label value 40" in done.stderr and "another process of this run" in done.stderr
    assert done.stderr.count(f"last.pt has 1 of 4 steps: {GO_ON}") == 2, done.stderr
    assert steps_saved(tmp_path / "run") == 1
    subprocess.run([*command, "--resume"], check=True, capture_output=True, timeout=280, env=environment)
    assert load_model(tmp_path / "run" / "model.safetensors") and time.monotonic() - began < 280


@contextmanager
def full_disk(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files that replace others go to a device that is full."""

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    with patch.context() as patched:
        patched.setattr("dovit.runtime.files._write_and_rename", full)
        yield


def test_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch and safetensors raise errors of their own, in words of their own."""
    sentence = r"x\.\w+: the disk is full; free some space and try again \(nothing of it was written\)$"
    for count in (1, 5_000_000):
        with full_disk(monkeypatch), pytest.raises(OutputError, match=sentence):
            write_torch({"a": torch.zeros(count)}, tmp_path / "x.pth")

    def save_file(*_: Any) -> None:  # to /dev/full it would rename its file, as root
        raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})")

    monkeypatch.setattr("dovit.export.checkpoints.own.save_file", save_file)
    with pytest.raises(OutputError, match=sentence):
        write_safetensors({"a": torch.zeros(1)}, {}, tmp_path / "x.safetensors")
    with pytest.raises(DovitError, match=r"x: cannot be written: Is a directory"):
        monkeypatch.setattr("dovit.runtime.files._write_and_rename", lambda path: _yielding(tmp_path))
        write_torch({}, tmp_path / "x")


@contextmanager
def _yielding(path: Path) -> Iterator[Path]:
    yield path


@pytest.mark.parametrize("before", [False, True])
def test_what_to_do_on_a_full_disk_is_true(
    tmp_path: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """With and without an earlier state, whose file must stay."""
    out = tmp_path / "run"
    if before:
        with wrong(labels_of_step(data, 1)), pytest.raises(DovitError):
            go(out, checkpoint, data)
    told = (
        rf"last\.pt has 1 of 4 steps: {GO_ON}" if before else r"to begin anew, delete (.*log\.jsonl) and give the same"
    )
    with full_disk(monkeypatch):
        monkeypatch.setattr("dovit.training.log._drop_lines_from", lambda *_: None)
        with pytest.raises(OutputError, match=rf"last\.pt: the disk is full; free some space and .*; .*{told}"):
            go(out, checkpoint, data, resume=before, save_every=2)
    assert (out / "last.pt").exists() == before
    if not before:
        (out / "log.jsonl").unlink()
    go(out, checkpoint, data, resume=before)


def test_a_full_disk_at_the_end_leaves_the_state(
    tmp_path: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("model.safetensors: the disk is full; free some space")

    with monkeypatch.context() as patched:
        patched.setattr("dovit.training.run.save_model", full)
        with pytest.raises(OutputError, match=rf"the disk is full.*; .*last\.pt has all steps: {GO_ON}"):
            go(tmp_path / "run", checkpoint, data)
    go(tmp_path / "run", checkpoint, data, resume=True)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_log_that_cannot_be_written_loses_no_step(
    tmp_path: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, step: int, values: Any) -> None:
        if step == 2:
            raise OutputError("log.jsonl: the disk is full; free some space")

    with monkeypatch.context() as patched:
        patched.setattr("dovit.training.log.Log.write", full)
        with pytest.raises(OutputError, match=rf"log\.jsonl: the disk is full.*last\.pt has 3 of 4 steps: {GO_ON}"):
            go(tmp_path / "run", checkpoint, data)
    assert steps_saved(tmp_path / "run") == 3


def ignored(data: Path, *numbers: int) -> None:
    for number in numbers:
        Image.new("L", (48, 40), 255).save(data / "labels" / f"{number}.png")


@pytest.mark.parametrize("steps", [5, 3])
def test_labels_that_are_all_ignored_are_said(
    tmp_path: Path, checkpoint: Path, data: Path, caplog: pytest.LogCaptureFixture, steps: int
) -> None:
    """Once, after a turn through the data, or at the end of a run that saw less: a teacher can be learned from without labels."""
    ignored(data, 0, 1, 2, 3)
    street_run(tmp_path / "run", checkpoint, Settings(steps=steps, batch=1), data=str(data), validation=None)
    assert caplog.text.count("no pixel of any crop so far is labelled (all are 255, ignored): check the labels") == 1
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_batches_without_labels_are_harmless(
    tmp_path: Path, checkpoint: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ignored(data, 0, 1, 2)
    settings = Settings(steps=9, batch=1, ratio_range=(1.0, 1.0))
    street_run(tmp_path / "run", checkpoint, settings, data=str(data), validation=None)
    assert (tmp_path / "run" / "model.safetensors").exists() and "labelled" not in caplog.text


def test_a_validation_without_labels_has_no_scores_and_says_why(
    tmp_path: Path, checkpoint: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unlabelled = tmp_path / "val"
    (unlabelled / "labels").mkdir(parents=True)
    (unlabelled / "images").symlink_to(data / "images")
    ignored(unlabelled, 0, 1, 2, 3)
    go(tmp_path / "run", checkpoint, data, validation=str(unlabelled))
    assert "no pixel of the 4 images is labelled (all are ignored), so there is no PA, mPA or mIoU" in caplog.text
    assert read_scores(tmp_path / "run", 3) == {} and "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()
