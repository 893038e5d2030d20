"""The interface of a GPU that the chain uses, small enough for tests to implement: memory, streams, graphs, and engines of plans.

Addresses are integers. Everything that takes a stream is queued on it, or, while a graph is being built on that stream, becomes
part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dovit.runtime.errors import DovitError


class Condition(Protocol):
    """A conditional handle: a number on the device that chooses the body of a SWITCH node; kernels set it."""

    @property
    def handle(self) -> object: ...  # int() makes a CUgraphConditionalHandle of it


class Node(Protocol):
    """A node of a graph; its class's name says of what kind."""


class Definition(Protocol):
    """A graph whose nodes can be listed."""

    def nodes(self) -> Iterable[Node]: ...


class Graph(Protocol):
    """An executable graph."""

    def launch(self, stream: Stream) -> None: ...


class Stream(Protocol):
    """A CUDA stream."""

    @property
    def handle(self) -> object: ...
    def sync(self) -> None: ...


class GraphBuilder(Protocol):
    """What captures the work on its stream: cuda.core.graph.GraphBuilder, as far as the chain uses it."""

    @property
    def stream(self) -> Stream: ...
    @property
    def graph_definition(self) -> Definition: ...
    def begin_building(self) -> GraphBuilder: ...
    def end_building(self) -> GraphBuilder: ...
    def create_condition(self, default_value: int | None = None) -> Condition: ...
    def switch(self, condition: Condition, count: int) -> Sequence[GraphBuilder]: ...
    def complete(self) -> Graph: ...


class Event(Protocol):
    """A CUDA event with timing."""


class Device(Protocol):
    """One GPU. Memory lives as long as the device object does, or until it is released."""

    @property
    def name(self) -> str: ...
    @property
    def free_bytes(self) -> int: ...
    @property
    def can_switch(self) -> bool: ...
    def make_current(self) -> None: ...  # for the calling thread
    def allocate(self, size: int) -> int: ...
    def pinned(self, size: int) -> np.ndarray: ...  # [size] uint8, on the host
    def release(self, place: int) -> None: ...  # what either of these has given; nothing may use it any longer
    def create_stream(self) -> Stream: ...
    def create_graph_builder(self) -> GraphBuilder: ...
    def captured_kinds(self, work: Callable[[int], None], stream: Stream) -> Sequence[str]:
        """Capture what `work` queues on `stream`, and discard it: the kinds of its nodes, as CUgraphNodeType calls them (KERNEL,
        MEMCPY, HOST, …), those of child graphs too. Raises DovitError where the capture fails; the stream is usable after it."""
        ...

    def copy(self, to: int, source: int, size: int, stream: int) -> None: ...  # in any direction
    def clear(self, place: int, size: int, stream: int) -> None: ...  # to zeros
    def create_event(self) -> Event: ...
    def record(self, event: Event, stream: int) -> None: ...
    def elapsed(self, start: Event, end: Event) -> float: ...  # milliseconds, once the stream has reached both


class Launchers(Protocol):
    """The kernels that the chain calls; `dovit.plugins.launch.Kernels` are the real ones. plugins/kernels/dovit_kernels.h has
    every kernel's arguments, which are given in that order, and then the stream. A kernel that needs scratch memory has a
    function `{kernel}_scratch_bytes`."""

    def __getattr__(self, name: str) -> Callable[..., object]: ...
    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]: ...


@dataclass(frozen=True)
class PlanCall:
    """One run of a plan: its tensors' addresses and shapes by name, and the number of its optimisation profile.

    `tokens`: what its segment runs on, which is all that its shapes depend on. `recurring`: these shapes come again, or are
    captured, so what is set up for them is to be kept.
    """

    addresses: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    tokens: int
    profile: int
    scratch: int
    recurring: bool = True


class DeviceEngine(Protocol):
    """What runs one plan on the device."""

    @property
    def scratch_bytes(self) -> int: ...  # at its largest shapes; all engines share one region, for they take turns
    def enqueue(self, call: PlanCall, stream: int) -> None:
        """Queue the plan. Raises DovitError where the runtime refuses: a capture must not go on without this plan."""
        ...

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        """None where the runtime says that this plan, which has run like this before, can be captured on `stream`; else a
        reason."""
        ...


@contextmanager
def cuda_errors(what: str) -> Iterator[None]:
    """Turn the exceptions of cuda.core, which share no base but Exception, into one sentence that begins with `what`."""
    try:
        yield
    except DovitError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DovitError(f"{what}: {reason[:200]}") from None


def address(array: np.ndarray) -> int:
    """The address of a host array."""
    return int(array.ctypes.data)


def stream_address(stream: Stream) -> int:
    """A stream's CUstream, which has __int__."""
    return int(stream.handle)  # type: ignore[call-overload]


def condition_handle(condition: Condition) -> int:
    """A condition's CUgraphConditionalHandle, which has __int__."""
    return int(condition.handle)  # type: ignore[call-overload]
