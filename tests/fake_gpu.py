"""A GPU in the host's memory: what is queued runs when somebody waits for it, what is captured runs when it is launched.

It keeps to CUDA's rules where a mistake in the chain would show: memory is poisoned, nothing is there before a stream is
synchronised, a condition begins every launch at its default, a switch with a number out of range runs nothing, and a recording
that was not ended cannot be launched. Kernels are written down from the design, in numpy, engines are ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps

import numpy as np
import torch
import torch.nn.functional as F

from dovit.plugins.launch import Kernels
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.engine import Engine
from dovit.runtime.errors import DovitError
from dovit.runtime.resize import resize_image

Work = Callable[[], None]
NOT_SET = 0xFFFFFFFF  # what a condition without a default holds: on a GPU it is unspecified


def array(place: int, shape: Sequence[int], dtype: str | type) -> np.ndarray:
    """The memory at an address."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(place), kind).reshape(tuple(shape))


@dataclass
class KernelNode:
    work: Work


@dataclass
class MemcpyNode(KernelNode):
    pass


@dataclass
class MemsetNode(KernelNode):
    pass


@dataclass
class HostCallbackNode(KernelNode):
    pass


@dataclass
class EventRecordNode(KernelNode):
    pass


KINDS = {
    KernelNode: "KERNEL",
    MemcpyNode: "MEMCPY",
    MemsetNode: "MEMSET",
    HostCallbackNode: "HOST",
    EventRecordNode: "EVENT_RECORD",
}


@dataclass
class FakeEvent:
    time: float | None = None


class FakeCondition:
    """A number in memory, whose address is the handle."""

    def __init__(self, default: int | None) -> None:
        self.default = default
        self.value = np.full(1, NOT_SET, np.uint32)
        self.handle = int(self.value.ctypes.data)


@dataclass
class SwitchNode:
    condition: FakeCondition
    bodies: list[FakeGraphBuilder]


@dataclass
class ChildGraphNode:
    child_graph: FakeGraphBuilder


class FakeStream:
    def __init__(self, device: FakeDevice) -> None:
        self.handle = device.number()
        self.waiting: list[Work] = []
        device.streams[self.handle] = self

    def sync(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class FakeGraphBuilder:
    def __init__(self, device: FakeDevice) -> None:
        self.device, self.stream = device, FakeStream(device)
        self.captured: list[object] = []
        self.conditions: list[FakeCondition] = []
        self.ended = False
        self.invalid = False

    def begin_building(self) -> FakeGraphBuilder:
        assert self.stream.handle not in self.device.building
        self.device.building[self.stream.handle] = self
        return self

    def end_building(self) -> FakeGraphBuilder:
        assert not self.invalid, "the driver crashes here, or cuda.core does"
        del self.device.building[self.stream.handle]
        self.ended = True
        return self

    def create_condition(self, default_value: int | None = None) -> FakeCondition:
        condition = FakeCondition(default_value)
        self.conditions.append(condition)
        return condition

    def switch(self, condition: FakeCondition, count: int) -> list[FakeGraphBuilder]:
        bodies = [FakeGraphBuilder(self.device) for _ in range(count)]
        self.captured.append(SwitchNode(condition, bodies))
        return bodies

    @property
    def graph_definition(self) -> FakeGraphBuilder:
        assert self.ended
        return self

    def nodes(self) -> list[object]:
        return self.captured

    def complete(self) -> FakeGraph:
        assert self.ended and all(
            body.ended for node in self.captured if isinstance(node, SwitchNode) for body in node.bodies
        )
        return FakeGraph(self)


class FakeGraph:
    def __init__(self, builder: FakeGraphBuilder) -> None:
        self.builder, self.launches = builder, 0

    def launch(self, stream: FakeStream) -> None:
        self.launches += 1
        stream.waiting.append(lambda: self._run(self.builder))

    def _run(self, builder: FakeGraphBuilder) -> None:
        for condition in builder.conditions:
            condition.value[0] = NOT_SET if condition.default is None else condition.default
        for node in builder.captured:
            if isinstance(node, SwitchNode):
                number = int(node.condition.value[0])
                if number < len(node.bodies):
                    self._run(node.bodies[number])
            else:
                assert isinstance(node, KernelNode)
                node.work()


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
        """Work under way that still needs it finds something else."""
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


class FakeKernels:
    """Decide, gather and reconstruct as the design defines them, one image after the other."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        return 4 * batch * channels

    def decide(
        self,
        confidence: int,
        threshold: int,
        capacities: int,
        capacity_count: int,
        batch: int,
        count: int,
        staying: int,
        keep: int,
        slots: int,
        capacity: int,
        switch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            q = array(confidence, (batch, count), np.float32)
            xi = array(threshold, (1,), np.float32)[0]
            stays = ~(q > xi)
            largest = int(stays.sum(axis=1).max())
            allowed = array(capacities, (capacity_count,), np.int64).tolist()
            chosen = min((c for c in allowed if c >= largest), default=largest)
            array(staying, (batch,), np.int32)[:] = stays.sum(axis=1)
            array(capacity, (1,), np.int32)[:] = chosen
            for image in range(batch):
                rank = np.where(stays[image], -np.inf, q[image])
                kept = np.sort(np.argsort(rank, kind="stable")[:chosen])
                array(keep, (batch, chosen), np.int32)[image] = kept
                row = array(slots, (batch, count), np.int32)[image]
                row[:] = -1
                row[kept] = np.arange(chosen)
            if switch:
                array(switch, (1,), np.uint32)[0] = allowed.index(chosen)

        self.device.submit(stream, KernelNode(work))

    def gather(
        self,
        element: str,
        tokens: int,
        index: int,
        slots: int,
        kept: int,
        kept_index: int,
        full: int,
        sum_before: int,
        sum_after: int,
        stopped_before: int,
        stopped_after: int,
        actual_count: int,
        batch: int,
        count: int,
        capacity: int,
        prefix: int,
        positions: int,
        channels: int,
        scratch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            came = int(array(actual_count, (1,), np.int32)[0]) if actual_count else count
            assert capacity <= came <= positions
            before = array(tokens, (batch, prefix + came, channels), element)
            where = array(index, (batch, came), np.int32)
            slot = array(slots, (batch, came), np.int32)
            after = array(kept, (batch, prefix + capacity, channels), element)
            stopped = int(array(stopped_before, (1,), np.int64)[0]) + came - capacity
            array(stopped_after, (1,), np.int64)[:] = stopped
            for image in range(batch):
                stays = slot[image] >= 0
                after[image, prefix:] = before[image, prefix:][stays]
                array(kept_index, (batch, capacity), np.int32)[image] = where[image][stays]
                gone = before[image, prefix:][~stays]
                array(full, (batch, positions, channels), element)[image, where[image][~stays]] = gone
                total = array(sum_before, (batch, channels), np.float32)[image] + gone.astype(np.float32).sum(axis=0)
                array(sum_after, (batch, channels), np.float32)[image] = total
                after[image, :prefix] = before[image, :prefix]
                if prefix and stopped:
                    after[image, 0] = 0.5 * (before[image, 0].astype(np.float32) + total / stopped)

        self.device.submit(stream, KernelNode(work))

    def reconstruct(
        self,
        element: str,
        tokens: int,
        index: int,
        full: int,
        batch: int,
        count: int,
        prefix: int,
        positions: int,
        channels: int,
        stream: int,
    ) -> None:
        def work() -> None:
            for image in range(batch):
                where = array(index, (batch, count), np.int32)[image]
                values = array(tokens, (batch, prefix + count, channels), element)[image, prefix:]
                array(full, (batch, positions, channels), element)[image, where] = values

        self.device.submit(stream, KernelNode(work))

    def labels(
        self,
        element: str,
        logits: int,
        labels: int,
        batch: int,
        classes: int,
        height: int,
        width: int,
        scale: int,
        stream: int,
    ) -> None:
        self.resized_labels(
            element, logits, labels, batch, classes, height, width, height * scale, width * scale, stream
        )

    def resized_labels(
        self,
        element: str,
        logits: int,
        labels: int,
        batch: int,
        classes: int,
        height: int,
        width: int,
        out_height: int,
        out_width: int,
        stream: int,
    ) -> None:
        def work() -> None:
            given = torch.from_numpy(array(logits, (batch, classes, height, width), element).astype(np.float64))
            large = F.interpolate(given, size=(out_height, out_width), mode="bilinear")
            made = array(labels, (batch, out_height, out_width), np.uint8 if classes <= 256 else np.int16)
            made[...] = large.argmax(dim=1).numpy()

        self.device.submit(stream, KernelNode(work))

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        """No weights, but what they would be for."""
        return np.array([source, target], np.int32), 7

    def resize(
        self,
        image: int,
        height: int,
        width: int,
        out: int,
        out_height: int,
        out_width: int,
        across: int,
        across_width: int,
        down: int,
        down_width: int,
        scratch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            assert array(across, (2,), np.int32).tolist() == [width, out_width] and across_width == 7
            assert array(down, (2,), np.int32).tolist() == [height, out_height] and down_width == 7
            array(scratch, (3 * max(height * out_width, out_height * width),), np.uint8)[:] = 0xEE
            made = resize_image(array(image, (height, width, 3), np.uint8), (out_height, out_width))
            array(out, (out_height, out_width, 3), np.uint8)[...] = made

        self.device.submit(stream, KernelNode(work))


class EmulatedKernels:
    """The kernels' own sources on emulated threads, queued and captured as the others are."""

    def __init__(self, device: FakeDevice, library: ctypes.CDLL) -> None:
        self.device, self.kernels = device, Kernels(library)

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        return self.kernels.gather_scratch_bytes(batch, count, channels)

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        return self.kernels.resize_taps(source, target)

    def __getattr__(self, name: str) -> Callable[..., None]:
        launch = getattr(self.kernels, name)

        @wraps(launch)  # whose last argument is the stream
        def queued(*arguments: int) -> None:
            self.device.submit(arguments[-1], KernelNode(lambda: launch(*arguments[:-1], 0)))

        return queued


class FakeEngine:
    """ONNX Runtime on the memory at given addresses."""

    scratch_bytes = 64

    def __init__(self, device: FakeDevice, step: PlanStep, engine: Engine, node: type[KernelNode] = KernelNode) -> None:
        self.device, self.step, self.engine, self.node = device, step, engine, node
        self.refuses = False
        self.invalidates = False  # any capture that it is part of
        self.reason: str | None = None  # that TensorRT would give against capturing it

    def enqueue(
        self, places: Mapping[str, int], dims: Mapping[str, int], scratch: int, stream: int, *, lasting: bool = True
    ) -> None:
        if self.refuses:
            raise DovitError(f"TensorRT could not enqueue {self.step.name}")
        if self.invalidates and stream in self.device.building:
            self.device.building[stream].invalid = True
        inputs = {
            spec.name: array(places[spec.name], spec.resolve(dict(dims)), spec.dtype) for spec in self.step.inputs
        }
        outputs = {
            spec.name: array(places[spec.name], spec.resolve(dict(dims)), spec.dtype) for spec in self.step.outputs
        }

        def work() -> None:
            array(scratch, (64,), np.uint8)[:] = 0xEE
            # a plan may write an output before it has read all inputs
            made = self.engine.run({name: value.copy() for name, value in inputs.items()}, dict.fromkeys(outputs))
            for name, place in outputs.items():
                place[...] = made[name]

        self.device.submit(stream, self.node(work))

    def why_not_capturable(self, dims: Mapping[str, int], scratch: int, stream: int) -> str | None:
        return self.reason
