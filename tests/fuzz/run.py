"""`python -m fuzz.run`: mutants of each boundary in child processes that are watched for time, memory and crashes.

    python -m fuzz.run checkpoint --count 10000        # so many mutants of one boundary
    python -m fuzz.run --seconds 3600                  # an hour over all of them
    python -m fuzz.run checkpoint --seed 3 --only 417  # one mutant again, with its traceback

Mutant N of seed S is the same everywhere, so a finding's line is enough to repeat it.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz.common import BYTES_LIMIT, DRIVERS, SECONDS_LIMIT, check_sentence

START_LIMIT = 300.0  # seconds for a child to import torch and make its seed files on a loaded machine


@dataclass
class Report:
    """Results of one boundary's mutants."""

    boundary: str
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0  # bytes that a mutant took beyond what the child held before it

    @property
    def count(self) -> int:
        """Mutants that were tried."""
        return sum(self.outcomes.values())


def fuzz(
    boundary: str,
    *,
    seed: int = 0,
    first: int = 0,
    count: int | None = None,
    seconds: float | None = None,
    workers: int = 1,
) -> Report:
    """Try mutants `first`, `first`+1, … of `boundary` until `count` are done or `seconds` have passed."""
    report, lock = Report(boundary), threading.Lock()
    end: float | None = None  # counted from the first mutant: a child takes long to import torch on a busy machine
    numbers = iter(range(first, first + count) if count else range(first, 1 << 62))

    def take() -> int | None:
        nonlocal end
        with lock:
            end = end or (time.monotonic() + seconds if seconds else None)
            return None if end and time.monotonic() > end else next(numbers, None)

    failures: list[Exception] = []

    def watch() -> None:
        try:
            _watch(report, lock, take, seed)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=watch) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    report.findings.sort(key=lambda finding: finding["mutant"])
    return report


def _watch(report: Report, lock: threading.Lock, take: Any, seed: int) -> None:
    """Send numbers to a child process, and start another where it dies or must be killed."""
    child: _Child | None = _Child(report.boundary, seed)
    while (number := take()) is not None:
        child = child or _Child(report.boundary, seed)
        answer = child.attempt(number)
        if answer.get("dead"):
            child.end()
            child = None
            if answer["what"] == "hang":  # a busy machine can stop any process for long: only the second time counts
                child = _Child(report.boundary, seed)
                answer = child.attempt(number)
                if answer.get("dead"):
                    child.end()
                    child = None
        with lock:
            report.outcomes[answer["outcome"]] += 1
            report.slowest = max(report.slowest, answer.get("seconds", 0.0))
            report.largest = max(report.largest, answer.get("bytes", 0))
            if "what" in answer:
                report.findings.append({"boundary": report.boundary, "seed": seed, "mutant": number, **answer})
    if child:
        child.end()


class _Child:
    """A process that tries mutants one by one as they are named to it."""

    def __init__(self, boundary: str, seed: int) -> None:
        self.folder = tempfile.mkdtemp(prefix="dovit-fuzz-")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": self.folder,
            "XDG_CACHE_HOME": self.folder,
            "COLUMNS": "200",
        }
        command = [sys.executable, "-m", "fuzz.run", boundary, "--seed", str(seed), "--child", self.folder]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
        if self._line(START_LIMIT) != b"ready\n":
            self.end()
            status = self.process.returncode
            raise RuntimeError(
                f"the driver does not start (status {status}): try python -m fuzz.run {boundary} --only 0"
            )

    def attempt(self, number: int) -> dict[str, Any]:
        """The result of mutant `number`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"%d\n" % number)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the next line says that it died
        line = self._line(SECONDS_LIMIT)
        if line is None:
            return {"dead": True, "outcome": "hang", "what": "hang", "seconds": SECONDS_LIMIT}
        if not line:
            status = self.process.wait()
            return {"dead": True, "outcome": "died", "what": f"the process died with status {status}"}
        return json.loads(line)

    def _line(self, limit: float) -> bytes | None:
        """The child's next line; empty where it died, None where it says nothing for `limit` seconds."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                return None
        return self.process.stdout.readline()

    def end(self) -> None:
        """End the process and remove its files."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def child(boundary: str, seed: int, folder: Path) -> None:
    """The child's side: numbers on stdin, a JSON object for each on the first stdout; later prints go nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    driver = importlib.import_module(f"fuzz.{boundary}").driver(_make_folder(folder / "seeds"))
    held = _memory("VmData")
    # twice the limit of a finding, so that no mutant takes all of the machine's memory
    resource.setrlimit(resource.RLIMIT_DATA, (held + 2 * BYTES_LIMIT, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        place = _make_folder(folder / "mutant")
        answer = attempt(driver, boundary, seed, int(line), place)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        shutil.rmtree(place, ignore_errors=True)


def attempt(driver: Any, boundary: str, seed: int, number: int, place: Path) -> dict[str, Any]:
    """Try one mutant; measure its time and memory."""
    from dovit.runtime.errors import DovitError

    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of the resident memory
    before, start = _memory("VmRSS"), time.monotonic()
    answer: dict[str, Any] = {}
    try:
        try:
            answer["outcome"] = driver.attempt(Random(f"{boundary} {seed} {number}"), place)
        except DovitError as error:
            answer["outcome"] = "refused"
            check_sentence(str(error))
    except BaseException as error:
        answer["outcome"] = type(error).__name__
        answer["what"] = f"{type(error).__name__}: {str(error)[:500]}"
        answer["traceback"] = traceback.format_exc()[-6000:]
    answer["seconds"] = time.monotonic() - start
    answer["bytes"] = max(0, _memory("VmHWM") - before)
    if answer["bytes"] > BYTES_LIMIT:
        answer["what"] = f"took {answer['bytes'] >> 20} MiB"
    return answer


def _memory(which: str) -> int:
    """Bytes, from this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    return 0


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__.splitlines()[0])
    parser.add_argument("boundary", nargs="*", help=f"{', '.join(DRIVERS)}; default all that are here")
    parser.add_argument("--count", type=int, help="mutants of each")
    parser.add_argument("--seconds", type=float, help="for all boundaries together")
    parser.add_argument("--seed", type=int, help="default another one each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="try this mutant alone, in this process")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = int(time.time()) if given.seed is None else given.seed
    here = [name for name in DRIVERS if Path(__file__).with_name(f"{name}.py").exists()]
    wanted = given.boundary or here
    if given.child:
        child(wanted[0], seed, given.child)
        return
    if given.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            driver = importlib.import_module(f"fuzz.{wanted[0]}").driver(_make_folder(Path(folder) / "seeds"))
            answer = attempt(driver, wanted[0], seed, given.only, _make_folder(Path(folder) / "mutant"))
        print(answer.pop("traceback", ""), json.dumps(answer, indent=1), sep="\n")
        return
    failed = False
    for boundary in wanted:
        seconds = given.seconds / len(wanted) if given.seconds else None
        start = time.monotonic()
        report = fuzz(
            boundary,
            seed=seed,
            first=given.first,
            count=given.count or (None if seconds else 1000),
            seconds=seconds,
            workers=given.workers,
        )
        print(describe(report, seed, time.monotonic() - start), flush=True)
        failed = failed or bool(report.findings)
    sys.exit(1 if failed else 0)


def describe(report: Report, seed: int, seconds: float) -> str:
    """A paragraph for people."""
    outcomes = ", ".join(f"{count} {name}" for name, count in report.outcomes.most_common())
    lines = [
        f"{report.boundary}: {report.count} mutants of seed {seed} in {seconds:.0f} s ({outcomes}); slowest "
        f"{report.slowest:.1f} s, most memory {report.largest / 1e6:.0f} MB, {len(report.findings)} findings"
    ]
    for finding in report.findings[:40]:
        lines.append(f"  mutant {finding['mutant']}: {finding['what'][:300]}")
        lines += [f"    {line.strip()}" for line in finding.get("traceback", "").strip().splitlines()[-5:-1]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
