"""Runs all tests and benchmarks that need a GPU, each part in a process of its own, so that a crash does not end the others.

`python3 benchmarks/gpu_parts.py FOLDER [PART…]`, called by gpu.sh. Needs nothing but Python itself. What a part needs is looked
for before it runs, and the part is skipped with the reason where something is missing. FOLDER gets PART.json for every part, and
parts.json with all of them. Exit status 0: at least one part passed and none failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import string
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "release"
LIBRARY = BUILD / "plugins" / "libdovit_plugins.so"
CAPTURED = BUILD / "tests" / "plugins" / "interface" / "plugins_captured"
SITE = ROOT / "build" / "gpu" / "site"
ENGINES = ROOT / "build" / "gpu" / "engines"
LIMIT = 9 * 60  # seconds a part
KEPT_OUTPUT = 20_000  # characters of a part's output that its JSON holds
KERNEL_TESTS = ("kernels", "merging_by_cell", "label_kernels")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")

# What this machine has, asked in a process of its own: a driver that does not match its libraries may end it.
PROBE = """
import importlib.util, json
from dovit.runtime.machine import Gpu, find_gpu
from dovit.runtime.plans import detect_tensorrt, unsupported_gpu
found = detect_tensorrt("tensorrt-rtx")
rtx = "tensorrt_rtx is not installed" if found.version is None else None
if rtx is None:
    rtx = unsupported_gpu("tensorrt-rtx", found) if isinstance(found.gpu, Gpu) else found.gpu
gpu = find_gpu()
print(json.dumps({"cuda_core": gpu if isinstance(gpu, str) else None, "rtx": rtx}))
"""


@dataclass(frozen=True)
class Part:
    """`needs`: names of what has to be there, see Machine.lacks. In the command `{out}` is a file for a JSON of its own, and
    `{xml}` one for pytest's report."""

    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]


@dataclass
class Outcome:
    """The result of a part. `status`: passed, failed, timed out or skipped; `why` says more of all but the first."""

    part: str
    status: str
    why: str
    gpu: str
    command: str = ""
    seconds: float = 0.0
    tests: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    output: str = ""


def pytest_part(name: str, *selection: str, needs: Sequence[str] = ("cuda_core",)) -> Part:
    """The tests for a GPU in these files."""
    options = ("-m", "gpu", "-q", "-rs", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider")
    command = (sys.executable, "-m", "pytest", *options, "--junitxml={xml}")
    return Part(name, ("gpu", "library", "numpy", "torch", "pytest", *needs), (*command, *selection))


def comparison_part(name: str, *arguments: str, needs: Sequence[str] = ()) -> Part:
    """The chain's modes against the dense model."""
    command = (sys.executable, "-m", "dovit.benchmarks.gpu_chain", "--out", "{out}")
    return Part(name, ("gpu", "library", "numpy", "torch", "onnx", "cuda_core", *needs), (*command, *arguments))


def parts() -> list[Part]:
    """All parts, the most informative first."""
    chain = "tests/runtime/gpu/test_on_a_gpu.py"
    street = ("--ckpt", "assets/streets-tiny.safetensors", "--image", "assets/street.png")
    export = "from dovit.export.cli import main; main()"
    listed = [
        Part("build", ("cmake", "nvcc"), ("bash", "-c", "cmake --preset release && cmake --build --preset release")),
        pytest_part("kernels-tests", *(f"tests/plugins/test_{name}.py" for name in KERNEL_TESTS), needs=()),
        Part("captured", ("gpu", "library", "captured"), (str(CAPTURED), str(LIBRARY))),
        *(
            Part(
                tool,
                ("gpu", "library", "captured", "compute-sanitizer"),
                ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", str(CAPTURED), str(LIBRARY)),
            )
            for tool in SANITIZERS
        ),
        Part(
            "kernels",
            ("gpu", "library", "numpy", "torch", "cuda_core"),
            (sys.executable, "-m", "dovit.benchmarks.kernels", "--out", "{out}"),
        ),
        pytest_part("switch", chain, "-k", "a_switch_begins_at_its_default"),
        pytest_part("segmented", chain, "-k", "segmented and not tensorrt_rtx"),
        pytest_part("graph", chain, "-k", "graph and not tensorrt_rtx"),
        pytest_part("chain", chain, "-k", "not (segmented or graph or tensorrt_rtx or a_switch_begins)"),
        comparison_part("comparison-street", *street),
        pytest_part("rtx-plans", "tests/engines/test_parity.py", needs=("rtx",)),
        pytest_part("rtx-chain", chain, "-k", "tensorrt_rtx", needs=("rtx",)),
        pytest_part("rtx-cpp", "tests/cpp/test_gpu_sessions.py", needs=("rtx", "cmake")),
        Part(
            "rtx-export",
            ("gpu", "rtx", "torch", "onnx"),
            (sys.executable, "-c", export, *street[:2], "--out", str(ENGINES), "--backend", "tensorrt-rtx"),
        ),
        comparison_part(
            "rtx-comparison-street",
            "--backend",
            "tensorrt-rtx",
            "--engine",
            str(ENGINES),
            *street,
            needs=("rtx", "engines"),
        ),
    ]
    for precision in ("fp16", "bf16"):
        for model in ("vit-l", "vit-b"):
            for size, more in (("1024x2048", ("--rounds", "50", "--images", "10")), ("512x512", ())):
                name = f"comparison-{model}-{size.partition('x')[0]}-{precision}"
                listed.append(comparison_part(name, "--model", model, "--size", size, "--precision", precision, *more))
    return listed


class Machine:
    """The GPU, driver and packages of this machine."""

    def __init__(self) -> None:
        by_status = shutil.which("nvidia-smi") and _output_of(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
        )
        self.gpu = (by_status or "").strip()
        self._probed: dict[str, str | None] | str | None = None

    def lacks(self, need: str) -> str | None:
        """What is missing, in a sentence; None where it is there."""
        if need == "gpu":
            return None if self.gpu else "no NVIDIA GPU (nvidia-smi lists none)"
        if need in ("cmake", "nvcc", "compute-sanitizer"):
            return None if shutil.which(need) else f"{need} is not on PATH"
        if need in ("library", "captured", "engines"):
            path, made_by = {
                "library": (LIBRARY, "the part build, or cmake --preset release && cmake --build --preset release"),
                "captured": (CAPTURED, "the part build"),
                "engines": (ENGINES / "bundle.json", "the part rtx-export"),
            }[need]
            return None if path.exists() else f"no {path.relative_to(ROOT)}: made by {made_by}"
        if need in ("cuda_core", "rtx"):
            probed = self._probe()
            return probed if isinstance(probed, str) else probed[need]
        found = _output_of([sys.executable, "-c", f"import {need}"])
        return None if found is not None else f"Python's package {need} is missing, or cannot be imported"

    def _probe(self) -> dict[str, str | None] | str:
        if self._probed is None:
            done = subprocess.run(
                [sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=ROOT, env=environment()
            )
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [
                f"status {done.returncode}"
            ]
            self._probed = (
                json.loads(lines[-1]) if done.returncode == 0 else f"dovit cannot look at this GPU: {lines[-1]}"
            )
        return self._probed


def environment() -> dict[str, str]:
    """For every part: the package as links, and the tests' helpers, before whatever PYTHONPATH has."""
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT / "tests"), *before])}


def make_site() -> None:
    """The package as an install would have it, but of links."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shutil.rmtree(SITE, ignore_errors=True)
    build = project["tool"]["scikit-build"]
    for package, source in build["wheel"]["packages"].items():
        shutil.copytree(
            ROOT / source, SITE / package, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__")
        )
    template = next(one["template"] for one in build["generate"] if one["path"] == "dovit/__init__.py")
    text = string.Template(template).safe_substitute(version=project["project"]["version"])
    (SITE / "dovit" / "__init__.py").write_text(text, encoding="utf-8")
    name, version = project["project"]["name"], project["project"]["version"]
    metadata = SITE / f"{name}-{version}.dist-info" / "METADATA"  # which importlib.metadata reads the version from
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    if LIBRARY.exists():
        (SITE / "dovit" / "plugins" / LIBRARY.name).symlink_to(LIBRARY)


def run_part(part: Part, machine: Machine, limit: float) -> Outcome:
    """Run it, unless something is missing."""
    missing = [reason for need in part.needs if (reason := machine.lacks(need)) is not None]
    if missing:
        return Outcome(part.name, "skipped", missing[0], machine.gpu)
    with tempfile.TemporaryDirectory() as folder:
        files = {"out": Path(folder) / "out.json", "xml": Path(folder) / "tests.xml"}
        command = [word.format(**files) if word in ("{out}", "--junitxml={xml}") else word for word in part.command]
        start = time.monotonic()
        log = Path(folder) / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                command, stdout=written, stderr=subprocess.STDOUT, cwd=ROOT, env=environment(), start_new_session=True
            )
            try:
                status = process.wait(limit)
                why = "" if status == 0 else f"signal {-status}" if status < 0 else f"exit status {status}"
                state = "failed" if status else "passed"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                state, why = "timed out", f"not done within {limit:.0f} s"
        outcome = Outcome(part.name, state, why, machine.gpu, " ".join(command), round(time.monotonic() - start, 1))
        outcome.output = log.read_text(encoding="utf-8", errors="replace")[-KEPT_OUTPUT:]
        if files["out"].exists():
            outcome.result = json.loads(files["out"].read_text(encoding="utf-8"))
        if files["xml"].exists():
            outcome.tests = read_tests(files["xml"])
            if state == "passed" and not outcome.tests["passed"]:
                outcome.status, outcome.why = "skipped", (outcome.tests["skipped"] or ["no test was selected"])[0]
    if outcome.why and outcome.status in ("failed", "timed out"):
        last = outcome.output.strip().splitlines()
        outcome.why += f": {last[-1][:200]}" if last else ""
    return outcome


def read_tests(report: Path) -> dict[str, Any]:
    """From pytest's XML: how many passed, which failed, and why others were skipped."""
    found: dict[str, Any] = {"passed": 0, "failed": [], "skipped": []}
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            found["failed"].append(f"{case.get('classname')}::{case.get('name')}")
        elif skipped is not None:
            found["skipped"].append(f"{case.get('name')}: {skipped.get('message')}")
        else:
            found["passed"] += 1
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    known = {part.name: part for part in parts()}
    parser = argparse.ArgumentParser(description="What only a GPU can show, a process and a JSON for each part.")
    parser.add_argument("folder", type=Path, help="for the JSON")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default all: {', '.join(known)}")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a part may take (%(default)s)")
    parser.add_argument("--seconds", type=float, help="seconds for all of them: what does not fit is skipped")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.parts if name not in known]
    if unknown:
        parser.error(f"no part {unknown[0]!r}: choose from {', '.join(known)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    machine, start, outcomes = Machine(), time.monotonic(), list[Outcome]()
    print(f"GPU: {machine.gpu or 'none'}", flush=True)
    for name in given.parts or known:
        make_site()  # anew, for a part may have built the library
        left = given.limit if given.seconds is None else min(given.limit, given.seconds - (time.monotonic() - start))
        if left < 1:
            outcome = Outcome(name, "skipped", f"no time left: run {name} by itself", machine.gpu)
        else:
            outcome = run_part(known[name], machine, left)
        outcomes.append(outcome)
        _write(given.folder / f"{name}.json", asdict(outcome))
        _write(given.folder / "parts.json", [asdict(one) for one in outcomes])
        counts = f", {outcome.tests['passed']} tests" if outcome.tests.get("passed") else ""
        print(f"{outcome.status:9} {name:24} {outcome.seconds:6.1f} s{counts}  {outcome.why}", flush=True)
    by_status = {
        state: [o.part for o in outcomes if o.status == state] for state in ("passed", "failed", "timed out", "skipped")
    }
    print(", ".join(f"{len(names)} {state}" for state, names in by_status.items()) + f"; JSON in {given.folder}")
    if not by_status["passed"] and not by_status["failed"] and not by_status["timed out"]:
        print("no part ran")
    return 0 if by_status["passed"] and not by_status["failed"] and not by_status["timed out"] else 1


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _output_of(command: Sequence[str]) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
