"""The scripts of the results: the commands take each of their command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import typer
from models import small_config
from PIL import Image
from typed import Typed

from dovit.export.model import DoViT
from dovit.training.torch_segmenter import TorchSegmenter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# what does a command's work
WORK = {
    "train": "dovit.training.run.run",
    "eval": "dovit.training.cli.eval.evaluate",
    "export": "dovit.export.run.export",
    "adapt": "dovit.training.adapt.run.adapt",
}
# what stands for a command: it notes its name and arguments, and leaves what they name
COMMAND = """#!/bin/sh
{python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {name} "$@" >> {log}
while [ $# -gt 1 ]; do [ "$1" != --out ] || {make} "$2"; shift; done
"""


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that came to their work, which ends them: they have read their options by then, and refused what they would.

    All find a model of twelve layers and 19 classes, dovit-eval one with the four decisions that dovit-adapt makes by default."""
    reached: list[str] = []

    def stand_in(name: str) -> Callable[..., NoReturn]:
        def work(*_: object, **__: object) -> NoReturn:
            reached.append(name)
            raise typer.Exit

        return work

    for name, work in WORK.items():
        monkeypatch.setattr(work, stand_in(name))
    sizes = {"classes": 19, "embed_dim": 32, "depth": 12}
    dense = DoViT(small_config("segmenter-linear", layers=(), **sizes))
    segmenter = TorchSegmenter(DoViT(small_config("segmenter-linear", layers=(2, 4, 6, 8), **sizes)))
    session = SimpleNamespace(
        manifest=segmenter.model.config, schedule="exact", backend="onnxruntime", provider="cpu", precision="fp32"
    )
    monkeypatch.setattr("dovit.export.checkpoints.load_model", lambda *_: SimpleNamespace(model=dense, left_out=""))
    monkeypatch.setattr("dovit.training.torch_segmenter.read_segmenter", lambda *_: segmenter)
    monkeypatch.setattr("dovit.training.cli.eval.load", lambda *_, **__: session)
    monkeypatch.setattr("dovit.training.cli.eval.BundleSegmenter", lambda *_: segmenter)
    monkeypatch.setattr("dovit.training.cli.eval.bundle_files", lambda *_: ())
    monkeypatch.setattr("dovit.training.cli.eval._dense", lambda *_: nullcontext())
    return reached


@pytest.mark.parametrize(
    "script",
    [
        "streets.sh OUT",
        "camvid.sh . . OUT --quick",
        "camvid.sh . . OUT --quick --torch",
        "camvid.sh . . OUT --quick --size 252x336 --steps 3 --rounds 3",
        "camvid.sh . . OUT --quick --probe",
        "camvid.sh . . OUT --quick --frozen",
    ],
)
def test_every_command(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: list[str], typed: Typed
) -> None:
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    for name in (*WORK, "run"):
        stand_in = tmp_path / "bin" / f"dovit-{name}"
        make = "touch" if name == "eval" else "mkdir -p"
        noted = os.devnull if name == "run" else log
        stand_in.write_text(COMMAND.format(python=sys.executable, name=name, log=noted, make=make))
        stand_in.chmod(0o755)
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    for folder in ("images/train", "images/val", "labels/train", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB" if "images" in folder else "L", (96, 64)).save(tmp_path / folder / f"{number}.png")
    name, *arguments = script.split()
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(BENCHMARKS / name), *arguments], cwd=tmp_path, env=environment, check=True, timeout=120)
    monkeypatch.chdir(tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {name for name, *_ in lines} == set(WORK) - ({"adapt"} if "streets" in script else set())
    for name, *line in lines:
        module = import_module("dovit.export.cli" if name == "export" else f"dovit.training.cli.{name}")
        status, _, errors = typed(module, *line)
        assert not status, (name, line, errors)
    assert reached == [name for name, *_ in lines]
    if "--size" in arguments:
        trained = {Path(line[line.index("--out") + 1]).name: line for name, *line in lines if name == "train"}
        assert all(line[line.index("--image-size") + 1] == "252x336" for line in trained.values())
        assert {"dovit-0", "dovit2-0", "dovit3-0", "control3-0"} < trained.keys() and "dovit4-0" not in trained
        assert trained["dovit3-0"][trained["dovit3-0"].index("--steps") + 1] == "3"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("data backbone", "give the data, the backbone and a folder for the runs; --help says more"),
        ("data backbone OUT --seeds", "--seeds : give numbers separated by commas, as 0,1,2"),
        ("data backbone OUT --seeds --quick", "--seeds --quick: give numbers"),
        ("data backbone OUT --seeds 0,,1", "--seeds 0,,1: give numbers"),
        ("data backbone OUT --jobs 0", "--jobs 0: give a number of runs, as 2"),
        ("data backbone OUT --size 252", "--size 252: give height and width, as 252x336"),
        ("data backbone OUT --steps --quick", "--steps --quick: give a number, as 3"),
        (
            "data backbone OUT --frozen --rounds 2",
            "--rounds: with --probe and --frozen there is one round: leave it out",
        ),
        ("data backbone OUT --fast", "unknown option --fast: --help lists those there are"),
        ("data backbone OUT --probe --frozen", "give --probe or --frozen, not both"),
    ],
)
def test_wrong_arguments_are_a_sentence(arguments: str, sentence: str, tmp_path: Path) -> None:
    called = ["bash", str(BENCHMARKS / "camvid.sh"), *arguments.split()]
    done = subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "") and sentence in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("called", ["camvid.sh --help", "camvid.sh data backbone OUT -h", "streets.sh --help"])
def test_help_is_the_head_of_the_script(called: str, tmp_path: Path) -> None:
    name, *arguments = called.split()
    script = ["bash", str(BENCHMARKS / name), *arguments]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"bash benchmarks/{name}" in done.stdout and "set -euo" not in done.stdout
    assert not list(tmp_path.iterdir())
