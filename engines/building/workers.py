"""Concurrent build processes, as many as the available memory allows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from dovit.engines.building.request import BuildReport, BuildRequest
from dovit.runtime.bundle.plans import Flavour
from dovit.runtime.errors import DovitError

# what a build needs under TensorRT-RTX 1.7: 0.26 GB for a tiny plan, 1.83 GB for ViT-L's stem with 0.16 GB of weights
BASE_BYTES = 300 << 20
WEIGHTS_TIMES = 10

Progress = Callable[[str, float], None]


def build_all(requests: Sequence[BuildRequest], jobs: int, progress: Progress) -> list[BuildReport]:
    """Build every plan, up to `jobs` at a time; `progress` is called with a plan's name and the fraction done.

    Raises DovitError for the first that fails; the other workers are killed, as they are on an interrupt.
    """
    workers = _WorkerPool()
    memory = _MemoryLimit()

    def build(request: BuildRequest) -> BuildReport:
        with memory.reserve(BASE_BYTES + WEIGHTS_TIMES * _weights(request)):
            report = workers.for_this_thread(request.flavour).build(
                request, lambda fraction: progress(request.name, fraction)
            )
        if report.kind == "failed":
            raise DovitError(f"{request.flavour} cannot build {request.name}: {report.error}")
        return report

    with ThreadPoolExecutor(max(1, min(jobs, len(requests)))) as pool:
        largest_first = sorted(requests, key=_weights, reverse=True)
        futures = {request.name: pool.submit(build, request) for request in largest_first}
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            workers.end()
    for future in done:
        future.result()  # raises the first failure: the others only report that they were killed
    return [futures[request.name].result() for request in requests]


def default_jobs() -> int:
    """The number of cores: a build is single-threaded most of the time."""
    return len(os.sched_getaffinity(0))


def _weights(request: BuildRequest) -> int:
    file = Path(request.onnx).with_suffix(".weights")
    return file.stat().st_size if file.exists() else 0


class _WorkerPool:
    """One worker process for each thread; after `end` no more are started."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._ended = False

    def for_this_thread(self, flavour: Flavour) -> _Worker:
        """The calling thread's worker, started at the first call. Every call of a build names the same `flavour`."""
        with self._lock:
            if self._ended:
                raise DovitError("the build was stopped")
            if not hasattr(self._local, "worker"):
                self._local.worker = _Worker(flavour)
                self._workers.append(self._local.worker)
            worker: _Worker = self._local.worker
            return worker

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for worker in self._workers:
                worker.end()


class _Worker:
    """One build process."""

    def __init__(self, flavour: Flavour) -> None:
        self._stderr = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dovit.engines.building.worker", flavour],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
        )

    def build(self, request: BuildRequest, progress: Callable[[float], None]) -> BuildReport:
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            print(request.model_dump_json(), file=self._process.stdin, flush=True)
            for line in self._process.stdout:
                report = BuildReport.model_validate_json(line)
                if report.kind != "progress":
                    return report
                progress(report.fraction)
        return BuildReport(kind="failed", error=self._exit_reason())

    def _exit_reason(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "the build process was killed, most likely because memory ran out: try --jobs 1"
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").split()
        return f"the build process {how}" + (f", last saying: {' '.join(said)[-300:]}" if said else "")

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


class _MemoryLimit:
    """The memory that builds may still reserve. One build may always start, or a small machine could build nothing."""

    def __init__(self) -> None:
        self._free = available_memory()
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, need: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0 or need <= self._free)
            self._running += 1
            self._free -= need
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._free += need
                self._changed.notify_all()


def available_memory() -> int:
    """Bytes that new processes can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 4 << 30
