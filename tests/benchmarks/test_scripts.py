"""The scripts of the results: dovit-train takes each of their command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# what stands for a command: it notes its arguments, and leaves what they name
COMMAND = """#!/bin/sh
{python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" >> {log}
while [ $# -gt 1 ]; do [ "$1" != --out ] || {make} "$2"; shift; done
"""


@pytest.mark.parametrize(
    "script",
    [
        "streets.sh OUT",
        "camvid.sh . . OUT --quick",
        "camvid.sh . . OUT --quick --probe",
        "camvid.sh . . OUT --quick --frozen",
    ],
)
def test_every_training(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dovit.training.log
    import dovit.training.run
    from dovit.training.cli.train import main

    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    for name in ("train", "eval", "export", "adapt", "run"):
        stand_in = tmp_path / "bin" / f"dovit-{name}"
        make = "touch" if name == "eval" else "mkdir -p"
        stand_in.write_text(
            COMMAND.format(python=sys.executable, log=log if name == "train" else os.devnull, make=make)
        )
        stand_in.chmod(0o755)
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    name, *arguments = script.split()
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(BENCHMARKS / name), *arguments], cwd=tmp_path, env=environment, check=True, timeout=120)
    monkeypatch.setattr(dovit.training.run, "run", lambda *given, **more: None)
    monkeypatch.setattr(dovit.training.log, "read_scores", lambda *given: {})
    monkeypatch.chdir(tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) > 2
    for line in lines:
        monkeypatch.setattr("sys.argv", ["dovit-train", *line])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("data backbone", "give the data, the backbone and a folder for the runs; --help says more"),
        ("data backbone OUT --seeds", "--seeds : give numbers separated by commas, as 0,1,2"),
        ("data backbone OUT --seeds --quick", "--seeds --quick: give numbers"),
        ("data backbone OUT --seeds 0,,1", "--seeds 0,,1: give numbers"),
        ("data backbone OUT --jobs 0", "--jobs 0: give a number of runs, as 2"),
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
