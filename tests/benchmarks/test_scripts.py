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
