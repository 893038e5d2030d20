"""CUDA events around queued operations, which measure each operation's time on the GPU, and NVTX ranges with its name.

Engines and kernels are wrapped once, when a chain is made. While no pass is timed, and so in every capture, a wrapper only
calls what it wraps.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from dovit.plugins.structs import structs
from dovit.runtime.gpu.device import Device, DeviceEngine, Event, Launchers, PlanCall
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.transfers import Transfers

NVTX_DOMAIN = "dovit"


def named(name: str) -> AbstractContextManager[object]:
    """An NVTX range of this name on the calling thread, for Nsight Systems; nothing without NVIDIA's package nvtx."""
    nvtx = _nvtx()
    return nullcontext() if nvtx is None else nvtx.annotate(name, domain=NVTX_DOMAIN)


@cache
def _nvtx() -> Any:
    try:
        return importlib.import_module("nvtx")
    except ImportError:
        return None


@dataclass(frozen=True)
class Mark:
    """One operation between two events."""

    name: str
    start: Event
    end: Event


class Stopwatch:
    """Marks the operations of one pass at a time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: list[Mark] | None = None
        self._within = False  # one operation, whose parts are not timed
        # used again in every pass, for making one takes longer than a kernel
        self._events: list[tuple[Event, Event]] = []

    @contextmanager
    def running(self) -> Iterator[list[Mark]]:
        """What is queued within is marked, in order."""
        self._marks = []
        try:
            yield self._marks
        finally:
            self._marks = None

    @property
    def is_running(self) -> bool:
        """Whether operations are marked at present."""
        return self._marks is not None

    @contextmanager
    def around(self, name: str, stream: int) -> Iterator[None]:
        """What is queued within is one operation; what would be one within it is not marked by itself."""
        if self._marks is None or self._within:
            yield
            return
        if len(self._marks) == len(self._events):
            self._events.append((self._device.create_event(), self._device.create_event()))
        start, end = self._events[len(self._marks)]
        self._within = True
        try:
            with named(name):
                self._device.record(start, stream)
                yield
                self._device.record(end, stream)
        finally:
            self._within = False
        self._marks.append(Mark(name, start, end))

    def milliseconds(self, mark: Mark) -> float:
        """How long it took, once its stream has got there."""
        return self._device.elapsed(mark.start, mark.end)

    def engines(self, engines: Mapping[str, DeviceEngine]) -> dict[str, DeviceEngine]:
        """The same, marked by their names."""
        return {name: _TimedEngine(name, engine, self) for name, engine in engines.items()}

    def kernels(self, kernels: Launchers) -> Launchers:
        """The same, marked by their names."""
        return cast(Launchers, _TimedKernels(kernels, self))


class _TimedEngine:
    def __init__(self, name: str, engine: DeviceEngine, stopwatch: Stopwatch) -> None:
        self._name, self._engine, self._stopwatch = name, engine, stopwatch

    @property
    def scratch_bytes(self) -> int:
        return self._engine.scratch_bytes

    def enqueue(self, call: PlanCall, stream: int) -> None:
        if not self._stopwatch.is_running:
            self._engine.enqueue(call, stream)
            return
        with self._stopwatch.around(self._name, stream):
            self._engine.enqueue(call, stream)

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        return self._engine.why_not_capturable(call, stream)


class _TimedKernels:
    """Every kernel of dovit_kernels.h, whose last argument is the stream; what else there is as it is. Each is wrapped when it is
    first looked up, and an attribute from then on, so that passes that are not timed are no slower."""

    def __init__(self, kernels: Launchers, stopwatch: Stopwatch) -> None:
        self._kernels, self._stopwatch = kernels, stopwatch

    def __getattr__(self, name: str) -> Callable[..., object]:
        launcher: Callable[..., object] = getattr(self._kernels, name)
        stopwatch = self._stopwatch

        def timed(*arguments: int) -> object:
            if not stopwatch.is_running:
                return launcher(*arguments)
            with stopwatch.around(name, arguments[-1]):
                return launcher(*arguments)

        setattr(self, name, timed if name in structs() else launcher)
        return getattr(self, name)


class TimedTransfers(Transfers):
    """The copies to the device and back, marked."""

    def __init__(self, program: LoadedProgram, stopwatch: Stopwatch) -> None:
        super().__init__(program)
        self._stopwatch = stopwatch

    def enqueue_inputs(self, stream: int, *, resized: bool = False) -> None:
        """See Transfers."""
        with self._stopwatch.around("copy in", stream):
            super().enqueue_inputs(stream, resized=resized)

    def enqueue_results(self, stream: int) -> None:
        """See Transfers."""
        with self._stopwatch.around("copy out", stream):
            super().enqueue_results(stream)

    def enqueue_labels_download(self, stream: int) -> None:
        """See Transfers."""
        with self._stopwatch.around("copy labels out", stream):
            super().enqueue_labels_download(stream)
