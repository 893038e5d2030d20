"""Runs that go on: exactly where they were killed, and only with the same settings and a whole state."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from models import randomised
from street_runs import READ, street_config, trained
from typed import Typed

from dovit.export.checkpoints import save_model
from dovit.runtime.errors import DovitError, UsageError
from dovit.training.cli import train as train_cli
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings


@pytest.mark.parametrize("policy", ["confidence", "dynamicvit"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, checkpoint: Path, policy: str, typed: Typed
) -> None:
    """SIGKILL at some step; the resumed run's losses and weights equal an uninterrupted run's, to the bit."""

    def arguments(out: Path, *more: str) -> list[str]:
        return [
            "--ckpt",
            str(checkpoint),
            "--data",
            "streets:8",
            "--out",
            str(out),
            "--steps",
            "40",
            "--batch",
            "2",
            "--lr",
            "0.01",
            "--policy",
            policy,
            "--val",
            "none",
            "--save-every",
            "5",
            "--log-every",
            "1",
            "--workers",
            "1",
            "--device",
            "cpu",
            *more,
        ]

    train = [sys.executable, "-m", "dovit.training.cli.train"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}  # the order of sums is the same on any machine's load
    subprocess.run([*train, *arguments(tmp_path / "whole")], check=True, env=quiet, capture_output=True)
    process = subprocess.Popen([*train, *arguments(tmp_path / "killed")], env=quiet, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 7) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    status, _, refusal = typed(train_cli, *arguments(tmp_path / "killed"))
    assert status == 2 and "--resume" in refusal and "Traceback" not in refusal
    subprocess.run([*train, *arguments(tmp_path / "killed", "--resume")], check=True, env=quiet, capture_output=True)
    assert log.read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_resuming_needs_the_same_settings(tmp_path: Path, checkpoint: Path) -> None:
    trained(tmp_path, checkpoint)
    changed = Settings(steps=4, batch=2, optimiser="adamw", lr=0.5)
    with pytest.raises(UsageError, match=r"other settings \(lr\): give the same, or"):
        run(StartingPoint(checkpoint=checkpoint, read=READ), lambda gpu: changed, "streets:8", tmp_path, resume=True)


def test_resuming_needs_the_same_merging(tmp_path: Path, checkpoint: Path) -> None:
    settings = Settings(steps=2, batch=2)

    def go(side: int, *, resume: bool) -> None:
        start = StartingPoint(checkpoint=checkpoint, read=READ, merge_cells=side)
        run(start, lambda gpu: settings, "streets:8", tmp_path, device="cpu", workers=0, resume=resume)

    go(2, resume=False)
    go(2, resume=True)
    with pytest.raises(UsageError, match=r"other settings \(merge_cells\)"):
        go(3, resume=True)


def test_resuming_heads_without_a_norm_says_how(tmp_path: Path) -> None:
    """As versions before the norm added them."""
    save_model(randomised(street_config(layers=())), tmp_path / "plain.pth")
    trained(tmp_path / "out", tmp_path / "plain.pth", {"head_norm": False})
    settings = Settings(steps=4, batch=2, optimiser="adamw")

    def go(norm: bool | None) -> None:
        start = StartingPoint(checkpoint=tmp_path / "plain.pth", read={**READ, "head_norm": norm})
        run(start, lambda gpu: settings, "streets:8", tmp_path / "out", device="cpu", workers=0, resume=True)

    with pytest.raises(
        UsageError, match=r"\(decisions\): give the same \(its decision heads have no norm: --no-head-norm\)"
    ):
        go(None)
    go(False)


def test_a_damaged_state_is_named(tmp_path: Path, checkpoint: Path) -> None:
    trained(tmp_path, checkpoint)
    state = tmp_path / "last.pt"
    state.write_bytes(state.read_bytes()[:5000])
    settings = Settings(steps=4, batch=2, optimiser="adamw")
    with pytest.raises(DovitError, match=r"last\.pt: not the state of a run"):
        run(StartingPoint(checkpoint=checkpoint, read=READ), lambda gpu: settings, "streets:8", tmp_path, resume=True)
