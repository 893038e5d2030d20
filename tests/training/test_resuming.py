"""Runs that go on: exactly where they were killed, and only with the same settings and a whole state."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from models import randomised
from PIL import Image
from street_runs import READ, signals_in, street_config, street_run, trained, weights
from typed import Typed

from dovit.export.checkpoints import load_model, save_model
from dovit.runtime.bundle.lock import LOCK_NAME, writer_lock
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.interrupts import Interrupted
from dovit.training.cli import train as train_cli
from dovit.training.origin import Data, Origin
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings
from dovit.training.torch_segmenter import read_segmenter


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


@pytest.mark.parametrize("left", [0, 5000, -1])
def test_a_truncated_state_is_named(tmp_path: Path, checkpoint: Path, left: int) -> None:
    settings = Settings(steps=1, batch=2)
    street_run(tmp_path, checkpoint, settings)
    state = tmp_path / "last.pt"
    state.write_bytes(state.read_bytes()[:left])
    sentence = (
        r"damaged \(the end of its archive is missing\); to begin anew, delete it and log\.jsonl, or give another --out"
    )
    with pytest.raises(DovitError, match=r"last\.pt: not the state of a run of this model, or " + sentence):
        street_run(tmp_path, checkpoint, settings, resume=True)
    for name in ("last.pt", "log.jsonl", "model.safetensors"):
        (tmp_path / name).unlink()
    street_run(tmp_path, checkpoint, settings)


def test_resuming_needs_the_same_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    """The same by content, wherever the file lies; both are named."""
    settings = Settings(steps=2, batch=2)
    copied, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    copied.write_bytes(checkpoint.read_bytes())
    save_model(randomised(street_config(), seed=5), other)

    def go(ckpt: Path, teacher: Path | None, *, resume: bool = True) -> None:
        start = StartingPoint(checkpoint=ckpt, read=READ, teacher=teacher)
        run(start, lambda gpu: settings, "streets:8", tmp_path / "out", device="cpu", workers=0, resume=resume)

    go(checkpoint, other, resume=False)
    go(copied, other)
    for ckpt, teacher, sentence in (
        (other, other, rf"--ckpt {checkpoint}, and not {other}: give the same, or another --out"),
        (checkpoint, copied, rf"--teacher {other}, and not {copied}"),
        (checkpoint, None, rf"--teacher {other}, and not {checkpoint}"),
    ):
        with pytest.raises(UsageError, match=f"is of a run with {sentence}"):
            go(ckpt, teacher)
    other.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UsageError, match=rf"--teacher {other}, which has other content now"):
        go(checkpoint, other)


def test_the_checkpoint_is_the_teacher_where_none_is_named(tmp_path: Path, checkpoint: Path) -> None:
    settings = Settings(steps=1, batch=1)
    for teacher, resume in ((None, False), (checkpoint, True)):
        start = StartingPoint(checkpoint=checkpoint, read=READ, teacher=teacher)
        run(start, lambda gpu: settings, "streets:8", tmp_path / "out", device="cpu", workers=0, resume=resume)


def test_resuming_needs_as_many_processes() -> None:
    data = Data(spec="streets", names="")
    one, two = (Origin(weights={}, data=data, processes=count) for count in (1, 2))
    assert two.difference(one) == "1 process, and not 2" and one.difference(two) == "2 processes, and not 1"
    assert one.difference(one) is None


def test_resuming_needs_the_same_data(tmp_path: Path, checkpoint: Path) -> None:
    def save(folder: str, value: int) -> None:
        for number in range(4):
            for name, mode in (("images", "RGB"), ("labels", "L")):
                file = tmp_path / folder / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (40, 40), (value,) * 3 if mode == "RGB" else value).save(file)

    def go(data: str, *, resume: bool = True, **more: Any) -> None:
        settings = Settings(steps=2, batch=2)
        street_run(tmp_path / "out", checkpoint, settings, data=data, resume=resume, validation=None, **more)

    save("one", 1)
    save("two", 2)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    go(one, resume=False)
    with pytest.raises(UsageError, match=r"label 0 as a class, and not label 0 ignored \(--reduce-zero-label\)"):
        go(one, reduce_zero_label=True)
    for other in (two, "streets:8"):  # with the same names, and with others
        with pytest.raises(UsageError, match=rf"is of a run with --data {one}, and not {other}: give the same"):
            go(other)
    (tmp_path / "one").rename(tmp_path / "moved")
    Image.new("L", (40, 40), 3).save(tmp_path / "moved" / "labels" / "0.png")  # one that was corrected
    go(str(tmp_path / "moved"))
    (tmp_path / "moved" / "images" / "0.png").unlink()
    (tmp_path / "moved" / "labels" / "0.png").unlink()
    with pytest.raises(UsageError, match="is of a run with --data"):
        go(str(tmp_path / "moved"))


def test_states_of_earlier_versions_go_on(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those did not say what a run began with; after an interrupt they end as a run without one does."""
    settings = Settings(steps=4, batch=2, optimiser="adamw")
    alone, run = tmp_path / "alone", tmp_path / "run"
    street_run(alone, checkpoint, settings)
    with monkeypatch.context() as patched:
        signals_in(patched, 1, signal.SIGINT)
        with pytest.raises(Interrupted, match="after 2 of 4 steps"):
            street_run(run, checkpoint, settings)
    content = torch.load(run / "last.pt", weights_only=True)
    del content["origin"]
    torch.save(content, run / "last.pt")
    street_run(run, checkpoint, settings, resume=True)
    assert (run / "log.jsonl").read_text() == (alone / "log.jsonl").read_text()
    a, b = (weights(folder / "model.safetensors") for folder in (alone, run))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of some clusters. A bundle, which two writers would spoil, is refused there."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    street_run(tmp_path / "run", checkpoint, Settings(steps=1, batch=1), data="streets:1", validation=None)
    assert "cannot lock files (Function not implemented)" in caplog.text
    with pytest.raises(DovitError, match="write to a local folder and copy it"), writer_lock(tmp_path):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_a_live_run_is_taken(tmp_path: Path, checkpoint: Path, resume: bool) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    with (
        writer_lock(tmp_path),
        pytest.raises(UsageError, match=rf"process {os.getpid()} is writing there; give another"),
    ):
        street_run(tmp_path, checkpoint, Settings(steps=1), resume=resume)
    assert (tmp_path / "log.jsonl").read_text()


def test_a_run_holds_the_lock_until_its_end(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: object) -> dict[str, float]:
        with pytest.raises(UsageError, match="is writing there"):
            street_run(tmp_path, checkpoint, Settings(steps=1))
        return {"mIoU": 1.0}

    monkeypatch.setattr("dovit.training.run.validate", second)
    street_run(tmp_path, checkpoint, Settings(steps=1), validation="streets:2")
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_state_is_no_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    trained(tmp_path, checkpoint)
    with pytest.raises(
        DovitError, match=r"last\.pt: the state of a run of dovit-train, .*: go on with that run by --resume"
    ):
        load_model(tmp_path / "last.pt")
    with pytest.raises(DovitError, match="the state of a run of dovit-train"):  # as dovit-eval reads them
        read_segmenter(tmp_path / "last.pt", torch.device("cpu"))
