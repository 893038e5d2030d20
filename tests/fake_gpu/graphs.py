"""Graphs, streams and conditional handles of the fake GPU, by CUDA's rules: a handle has its default at every launch, a SWITCH
node with a value out of range runs nothing, and a capture that was not ended cannot be launched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fake_gpu.device import FakeDevice

Work = Callable[[], None]
NOT_SET = 0xFFFFFFFF  # what a condition without a default holds: on a GPU it is unspecified


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
