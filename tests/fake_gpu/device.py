"""The device of the fake GPU: poisoned memory, and work that is queued on streams or captured into graphs."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dovit.runtime.errors import DovitError
from fake_gpu.graphs import (
    KINDS,
    EventRecordNode,
    FakeEvent,
    FakeGraphBuilder,
    FakeStream,
    KernelNode,
    MemcpyNode,
    MemsetNode,
)


def array(place: int, shape: Sequence[int], dtype: str | type) -> np.ndarray:
    """The memory at an address."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(place), kind).reshape(tuple(shape))


@dataclass
class FakeDevice:
    name: str = "fake GPU"
    free_bytes: int = 1 << 40
    can_switch: bool = True
    streams: dict[int, FakeStream] = field(default_factory=dict)
    building: dict[int, FakeGraphBuilder] = field(default_factory=dict)
    allocated: list[np.ndarray] = field(default_factory=list)
    released: list[np.ndarray] = field(default_factory=list)
    numbers: int = 0
    asked: int = 0  # how much was queued or recorded
    fails_at: int = 0  # the request that is refused, from 1

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def make_current(self) -> None:
        pass

    def allocate(self, size: int) -> int:
        return int(self.pinned(size).ctypes.data)

    def pinned(self, size: int) -> np.ndarray:
        assert not self.building, "memory is taken during a capture"
        self.allocated.append(np.full(size, 0xFF, np.uint8))
        return self.allocated[-1]

    def release(self, place: int) -> None:
        """The memory is poisoned, so that queued work that still reads it gives wrong results."""
        [number] = [n for n, memory in enumerate(self.allocated) if memory.ctypes.data == place]
        self.released.append(self.allocated.pop(number))
        self.released[-1][:] = 0xEE

    def create_stream(self) -> FakeStream:
        return FakeStream(self)

    def create_graph_builder(self) -> FakeGraphBuilder:
        return FakeGraphBuilder(self)

    def captured_kinds(self, work: Callable[[int], None], stream: FakeStream) -> list[str]:
        assert not stream.waiting, "a trial on a stream that is not idle"
        recording = FakeGraphBuilder(self)
        self.building[stream.handle] = recording
        try:
            work(stream.handle)
        finally:
            del self.building[stream.handle]
        if recording.invalid:
            raise DovitError("cuStreamEndCapture failed: operation failed due to a previous error during capture")
        return [KINDS[type(node)] for node in recording.captured if isinstance(node, KernelNode)]

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.submit(stream, MemcpyNode(lambda: ctypes.memmove(to, source, size) and None))

    def clear(self, place: int, size: int, stream: int) -> None:
        self.submit(stream, MemsetNode(lambda: ctypes.memset(place, 0, size) and None))

    def create_event(self) -> FakeEvent:
        return FakeEvent()

    def record(self, event: FakeEvent, stream: int) -> None:
        event.time = None
        self.submit(stream, EventRecordNode(lambda: setattr(event, "time", time.perf_counter())))

    def elapsed(self, start: FakeEvent, end: FakeEvent) -> float:
        assert start.time is not None and end.time is not None, "an event that no stream has reached"
        return (end.time - start.time) * 1e3

    def submit(self, stream: int, node: KernelNode) -> None:
        """Record `node` where a graph is being built on that stream, else queue it."""
        self.asked += 1
        if self.asked == self.fails_at:
            raise DovitError("CUDA refuses")
        if stream in self.building:
            self.building[stream].captured.append(node)
        else:
            self.streams[stream].waiting.append(node.work)
