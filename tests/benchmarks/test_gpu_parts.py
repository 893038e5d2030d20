"""benchmarks/gpu_parts.py without a GPU: a part that crashes, hangs or cannot run does not keep the others from running."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dovit.benchmarks import gpu_parts
from dovit.benchmarks.gpu_parts import ROOT, Machine, Outcome, Part, run_part


class Anything(Machine):
    """A machine that has every need of a part, except one named `missing`."""

    def __init__(self) -> None:
        self.gpu = "a GPU"

    def lacks(self, need: str) -> str | None:
        return "no driver" if need == "missing" else None


def ran(code: str, *more: str, needs: tuple[str, ...] = (), limit: float = 60) -> Outcome:
    return run_part(Part("one", needs, (sys.executable, "-c", code, *more)), Anything(), limit)


def test_status_of_each_part() -> None:
    good = ran("import sys; open(sys.argv[1], 'w').write('{\"ms\": 3}'); print('done')", "{out}")
    assert (good.status, good.result, good.output, good.gpu) == ("passed", {"ms": 3}, "done\n", "a GPU")
    failed = ran("print('first'); raise SystemExit('the reason')")
    assert (failed.status, failed.why) == ("failed", "exit status 1: the reason")
    crashed = ran("import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    assert (crashed.status, crashed.why) == ("failed", "signal 11: so far")
    skipped = ran("raise SystemExit(1)", needs=("there", "missing"))
    assert (skipped.status, skipped.why, skipped.command) == ("skipped", "no driver", "")


def test_a_part_that_hangs_ends_with_its_children() -> None:
    """A test that has started another process, which would keep the GPU."""
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    hanging = ran(code, limit=2)
    assert hanging.status == "timed out" and hanging.why.startswith("not done within 2 s")
    status = Path(f"/proc/{hanging.output.strip()}/stat")
    until = time.monotonic() + 30
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_pytest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert False\n"
        "def test_c(): pytest.skip('compute capability 9.0 is unknown')\n"
    )
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--junitxml={xml}", str(file))
    part = Part("one", (), (sys.executable, *options))
    found = run_part(part, Anything(), 60)
    assert found.status == "failed" and found.tests["passed"] == 1
    assert [name.rpartition("::")[2] for name in found.tests["failed"]] == ["test_b"]
    assert "compute capability 9.0 is unknown" in found.tests["skipped"][0]
    only = run_part(Part("one", (), (*part.command, "-k", "test_c")), Anything(), 60)
    assert only.status == "skipped" and "compute capability 9.0 is unknown" in only.why, "nothing was shown"


def test_all_of_it_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every part says why it did not run, and its JSON with it."""
    monkeypatch.setattr(Machine, "lacks", lambda self, need: "no NVIDIA GPU" if need == "gpu" else f"no {need}")
    monkeypatch.setattr(gpu_parts, "SITE", tmp_path / "site")
    assert gpu_parts.main([str(tmp_path / "out")]) == 1
    names = [part.name for part in gpu_parts.parts()]
    assert len({*names}) == len(names) >= 20
    for name in names:
        told = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert told["status"] == "skipped" and told["why"].startswith("no ")
    assert [one["part"] for one in json.loads((tmp_path / "out" / "parts.json").read_text())] == names
    printed = capsys.readouterr().out
    assert f"0 passed, 0 failed, 0 timed out, {len(names)} skipped" in printed and "no part ran" in printed
    with pytest.raises(SystemExit) as usage:
        gpu_parts.main([str(tmp_path), "nothing-like-it"])
    assert usage.value.code == 2


def test_nothing_starts_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "lacks", lambda self, need: None)
    monkeypatch.setattr(gpu_parts, "SITE", tmp_path / "site")
    assert gpu_parts.main([str(tmp_path / "out"), "kernels", "--seconds", "0.5"]) == 1
    assert json.loads((tmp_path / "out" / "kernels.json").read_text())["why"] == "no time left: run kernels by itself"


def test_the_package_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where dovit is not installed."""
    monkeypatch.setattr(gpu_parts, "SITE", tmp_path / "site")
    gpu_parts.make_site()
    code = "import dovit.runtime.plans, dovit; print(dovit.__version__, dovit.runtime.plans.__file__)"
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
    )
    version, file = done.stdout.split()
    assert file.startswith(str(tmp_path))
    [installed] = importlib.metadata.distributions(name="dovit", path=[str(tmp_path / "site")])
    assert installed.version == version


def test_unpacked_packages_and_headers_are_found(tmp_path: Path) -> None:
    """gpu.sh on a machine that can fetch nothing: python3 is replaced by a script that prints its arguments."""
    header = tmp_path / "site" / "kernel_lens" / "include" / "tensorrt" / "NvInferRuntime.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH|$TENSORRT_ROOT|$DOVIT_DOWNLOAD_HEADERS|$*"\n')
    python.chmod(0o755)
    given = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "DOVIT_GPU_SITE": str(tmp_path / "site"),
        "PYTHONPATH": "before",
    }
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "out", "kernels"],
        capture_output=True,
        text=True,
        env=given,
        check=True,
    )
    told = f"{tmp_path / 'site'}:before|{header.parent}|OFF|benchmarks/gpu_parts.py out kernels\n"
    assert done.stdout == told, done.stderr
