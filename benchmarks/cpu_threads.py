"""Four ways to give ONNX Runtime's sessions threads, and what each leaves to the program's other work.

    taskset -c 0,1 python -m dovit.benchmarks.cpu_threads --engine engines/ --rounds 60 [--keep 0.5,0.35,0.25] [--threads 2]

Each way is a process of its own; they take turns in an order that changes. In its turn a process resizes a picture of 2000×1500
with Pillow on one thread, runs an image, resizes the picture again right behind it, runs the image again, and sleeps for 100 ms.
Prints JSON: medians of ms (and the fastest) and of CPU ms of all threads, and whether a session of ONNX Runtime that the program
makes for itself can be made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from dovit.benchmarks.report import PACKAGES, at_least_one, errors_in_a_sentence, machine_and_versions
from dovit.runtime.arguments import check_keep
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli.values import parse_shares
from dovit.runtime.loading import load

# name → the entries of a session's configuration; None: threads of the process that all sessions share
WAYS: dict[str, dict[str, str] | None] = {
    "one global pool that spins": None,
    "a pool a step that sleeps (dovit's)": {"session.intra_op.allow_spinning": "0"},
    "a pool a step that spins while it runs": {
        "session.intra_op.allow_spinning": "1",
        "session.force_spinning_stop": "1",
    },
    "a pool a step that spins (ONNX Runtime's default)": {"session.intra_op.allow_spinning": "1"},
}
IDLE_S = 0.1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--rounds", type=at_least_one, default=60)
    parser.add_argument("--keep", help="shares of the tokens, as 0.5,0.35,0.25. Default: the bundle's ξ")
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", choices=tuple(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with errors_in_a_sentence(parser):
        keep = parse_shares(given.keep, "--keep")
        if given.worker:
            _work(given.engine, given.threads, keep, WAYS[given.worker])
            return
        manifest = open_bundle(given.engine).manifest  # or each of the processes would say what is wrong
        if keep:
            check_keep(manifest, keep)
        report = measure(given.engine, given.threads, keep, given.rounds)
    print(json.dumps(report, indent=1))


def measure(engine: Path, threads: int, keep: tuple[float, ...] | None, rounds: int) -> dict[str, Any]:
    """The report: a row for each way."""
    command = [sys.executable, "-m", "dovit.benchmarks.cpu_threads", "--engine", str(engine), "--threads", str(threads)]
    command += ["--keep", ",".join(map(str, keep))] if keep else []
    workers: dict[str, subprocess.Popen[str]] = {}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    try:
        for name in WAYS:
            workers[name] = subprocess.Popen(
                [*command, "--worker", name], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        own = {name: _answer(worker)["own_session_runs"] for name, worker in workers.items()}
        order, shuffle = list(WAYS), random.Random(0).shuffle
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                found[name].append(_ask(workers[name]))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    rows = [
        {"name": name, "ms_fastest": min(one["ms"] for one in found[name])}
        | {key: statistics.median(one[key] for one in found[name]) for key in found[name][0]}
        | {"own_session_runs": own[name]}
        for name in WAYS
    ]
    about = {"engine": str(engine), "threads": threads, "keep": keep, "rounds": rounds}
    return about | machine_and_versions(PACKAGES) | {"rows": rows}


def _ask(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return _answer(worker)


def _answer(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a process ended with status {worker.wait()}: its message is above")
    found: dict[str, Any] = json.loads(line)
    return found


def _work(engine: Path, threads: int, keep: tuple[float, ...] | None, entries: dict[str, str] | None) -> None:
    """One way's process: answers each line of stdin with what a turn took."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # ONNX Runtime writes its warnings to stdout

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    _use_threads(threads, entries)
    session = load(engine, provider="cpu", threads=threads)
    manifest = session.manifest
    image = np.random.default_rng(0).integers(0, 256, (*manifest.image_size, 3), dtype=np.uint8)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8))
    for _ in range(3):
        session(image, keep=keep)
    first = manifest.steps[0].onnx
    assert first is not None  # the provider cpu needs it
    say({"own_session_runs": _own_session(engine / first)})
    for _ in sys.stdin:
        _, alone = _timed(lambda: picture.resize((1000, 750)))
        ms, cpu_ms = _timed(lambda: session(image, keep=keep))
        _, behind = _timed(lambda: picture.resize((1000, 750)))
        session(image, keep=keep)
        _, idle = _timed(lambda: time.sleep(IDLE_S))
        say(
            {
                "ms": ms,
                "cpu_ms": cpu_ms,
                "cpu_ms_resize_alone": alone,
                "cpu_ms_resize_behind": behind,
                "cpu_ms_idle": idle,
            }
        )


def _use_threads(threads: int, entries: dict[str, str] | None) -> None:
    """Let every session's options from now on say this way's threads instead of the runtime's."""
    if entries is None:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.use_per_session_threads = entries is not None
            for key, value in (entries or {}).items():
                super().add_session_config_entry(key, value)

        def add_session_config_entry(self, key: str, value: str) -> None:
            if key != "session.intra_op.allow_spinning":
                super().add_session_config_entry(key, value)

    onnxruntime.SessionOptions = Options


def _own_session(model: Path) -> bool:
    """Whether a session with ONNX Runtime's default options can be made beside ours."""
    try:
        onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime raises its own types
        return False
    return True


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds, and CPU milliseconds of all threads."""
    before, start = time.process_time(), time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - before)


if __name__ == "__main__":
    main()
