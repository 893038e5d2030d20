"""A signal ends a run after the current step, with its state saved; the resumed run equals an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from street_runs import signals_in, street_run, trained, weights

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.interrupts import Interrupted
from dovit.training.settings import Settings


def go_on(out: Path, checkpoint: Path, **more: Any) -> None:
    street_run(out, checkpoint, Settings(steps=4, batch=2, optimiser="adamw"), **more)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted_goes_on_exactly(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    alone = trained(tmp_path / "alone", checkpoint)
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        signals_in(patched, 1, number)
        with pytest.raises(
            Interrupted, match=r"after 2 of 4 steps: .*last\.pt is saved; go on with .*--resume"
        ) as error:
            go_on(tmp_path / "run", checkpoint)
    assert error.value.exit_status == status and signal.getsignal(number) is before
    assert not (tmp_path / "run" / "model.safetensors").exists()
    go_on(tmp_path / "run", checkpoint, resume=True)
    assert log(tmp_path / "run") == alone
    a, b = (weights(tmp_path / n / "model.safetensors") for n in ("alone", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_second_interrupt_ends_at_once(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals_in(monkeypatch, 1, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path, checkpoint)
    assert not (tmp_path / "last.pt").exists()


def test_an_interrupted_validation_is_repeated(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def validating(*_: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {"mIoU": 1.0}

    monkeypatch.setattr("dovit.training.run.validate", validating)
    with pytest.raises(Interrupted, match=r"during validation: .*last\.pt has step 4, and --resume validates it"):
        go_on(tmp_path, checkpoint, validation="streets:2")
    assert not (tmp_path / "model.safetensors").exists() and "mIoU" not in log(tmp_path)[-1]
    go_on(tmp_path, checkpoint, validation="streets:2", resume=True)
    assert log(tmp_path)[-1] == {"step": 3, "mIoU": 1.0} and len(log(tmp_path)) == 5
    go_on(tmp_path, checkpoint, validation="streets:2", resume=True)
    assert len(calls) == 2 and len(log(tmp_path)) == 5


def test_folders_with_and_without_a_run(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run to go on with \(last\.pt is missing\)"):
        go_on(tmp_path / "empty", checkpoint, resume=True)
    trained(tmp_path / "run", checkpoint)
    with pytest.raises(UsageError, match="holds a run: go on with it by --resume"):
        go_on(tmp_path / "run", checkpoint)
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(UsageError, match=r"model\.safetensors is of another run"):
        go_on(tmp_path / "run", checkpoint)
    (tmp_path / "run" / "model.safetensors").unlink()
    for resume in (False, True):  # neither can do what the other would advise
        with pytest.raises(UsageError, match=r"log\.jsonl is of a run that ended before it saved a state; delete it"):
            go_on(tmp_path / "run", checkpoint, resume=resume)
    (tmp_path / "run" / "log.jsonl").unlink()
    go_on(tmp_path / "run", checkpoint)


def _set(*keys: Any, value: Any) -> Callable[[dict[Any, Any]], None]:
    def change(content: dict[Any, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder of a run that was interrupted in its first step."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        signals_in(patch, 0, signal.SIGINT)
        with pytest.raises(Interrupted):
            go_on(folder, checkpoint)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.clear(),
        _set("step", value=-1),
        _set("step", value=5),
        _set("step", value=2.0),
        _set("step", value="2"),
        _set("step", value=float("nan")),
        _set("step", value=10**400),
        _set("settings", value=[]),
        _set("model", value=7),
        _set("model", "mean", value=None),
        _set("model", "mean", value=torch.zeros(4)),
        _set("optimiser", value={}),
        _set("optimiser", "state", 0, "exp_avg", value=torch.zeros(1)),
        _set("optimiser", "state", 0, "exp_avg", value=torch.zeros(1).to_sparse()),
        _set("optimiser", "state", 0, "step", value="x"),
        _set("optimiser", "param_groups", 0, "lr_scale", value="x"),
        _set("optimiser", "param_groups", 0, "betas", value=None),
        _set("optimiser", "param_groups", 0, "params", value=[0]),
    ],
)
def test_a_state_that_was_tampered_with_is_a_sentence(
    interrupted: Path, tmp_path: Path, checkpoint: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(DovitError, match=r"last\.pt: not the state of a run of this model, or damaged") as error:
        go_on(tmp_path, checkpoint, resume=True)
    assert "\n" not in str(error.value)


def test_two_processes_end_after_the_same_step(tmp_path: Path, checkpoint: Path) -> None:
    """torchrun forwards Ctrl-C to processes that the terminal has sent it to already: each gets it twice."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "dovit.training.cli.train",
        "--ckpt",
        str(checkpoint),
        "--data",
        "streets:8",
        "--steps",
        "100000",
        "--val",
        "none",
        "--log-every",
        "3",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (tmp_path / "run" / "log.jsonl").exists():
        time.sleep(0.1)
    while time.monotonic() < deadline and len(log(tmp_path / "run")) < 2:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    steps = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"]
    assert process.returncode and f"interrupted after {steps} of 100000 steps" in errors, errors
    assert (steps - 1) % 3 == 0 and log(tmp_path / "run")[-1]["step"] == steps - 1
