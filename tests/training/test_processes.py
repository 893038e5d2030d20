"""Runs of several processes, as torchrun starts them."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from models import randomised
from street_runs import READ, street_config, weights

from dovit.export.checkpoints import save_model
from dovit.training.parallel import Process
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings

TWICE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def finished(command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """torchrun with 2 × 2 images: the same losses and weights as one process with 4, for a model without batch norm."""
    save_model(randomised(street_config("segmenter-linear")), tmp_path / "model.pth")
    common = [
        "--ckpt",
        str(tmp_path / "model.pth"),
        "--data",
        "streets:8",
        "--steps",
        "6",
        "--lr",
        "0.01",
        "--threshold",
        "1",
        "--scale-range",
        "1,1",
        "--val",
        "none",
        "--log-every",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--precision",
        "fp32",  # the two are compared closely
    ]
    one = [sys.executable, "-m", "dovit.training.cli.train", *common, "--batch", "4", "--out", str(tmp_path / "one")]
    two = [*TWICE, "-m", "dovit.training.cli.train", *common, "--batch", "2", "--out", str(tmp_path / "two")]
    for command in (one, two):
        finished(command)
    a, b = (
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two")
    )
    assert [line["loss"] for line in a] == pytest.approx([line["loss"] for line in b], rel=1e-4)
    first, second = (weights(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


def test_only_the_first_process_touches_the_folder(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several at once would remove each other's files."""

    class Second(Process):
        def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
            return module

        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return value

        def any(self, flag: bool) -> bool:
            return flag

    monkeypatch.setattr("dovit.training.run.process", lambda device: nullcontext(Second(1, 2, torch.device("cpu"))))
    run(
        StartingPoint(checkpoint=checkpoint, read=READ),
        lambda gpu: Settings(steps=1, batch=2),
        "streets:8",
        tmp_path / "out",
        device="cpu",
        workers=0,
    )
    assert not (tmp_path / "out").exists()


def test_the_others_wait_while_the_first_validates(tmp_path: Path) -> None:
    """For longer than torch waits by default, which is made short here."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from datetime import timedelta\n"
        "from torch.distributed import distributed_c10d\n"
        "from dovit.training.parallel import process\n"
        "distributed_c10d.default_pg_timeout = timedelta(seconds=1)\n"
        "with process('cpu') as here:\n"
        "    here.any(False)\n"
        "    with here.together():\n"
        "        time.sleep(4 if here.is_first else 0)\n"
    )
    finished([*TWICE, str(script)])


def test_no_thread_of_the_group_is_left(tmp_path: Path) -> None:
    """A thread that still frees a tensor while the interpreter exits would make the process fail now and then."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, torch\n"
        "from dovit.training.parallel import process\n"
        "def names():\n"
        "    return [open(f'/proc/self/task/{one}/comm').read() for one in os.listdir('/proc/self/task')]\n"
        "def step(here):\n"
        "    wrapped = here.wrap(torch.nn.Linear(3, 3))\n"
        "    wrapped(torch.ones(1, 3)).sum().backward()\n"
        "    here.any(False)\n"
        "    return any('gloo' in name for name in names())\n"
        "with process('cpu') as here:\n"
        "    during = step(here)\n"
        "sys.exit(not during or any('gloo' in name for name in names()))\n"
    )
    finished([*TWICE, str(script)])
