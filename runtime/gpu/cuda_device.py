"""A real GPU behind the interface of device.py: cuda.core for streams and graphs, the CUDA driver for copies."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import Event, GraphBuilder, Stream, cuda_errors
from dovit.runtime.machine import find_gpu

SWITCH_CUDA = (12, 8)  # the first driver that has SWITCH nodes


class CudaDevice:
    """GPU `number` of this machine, and the memory that was taken on it."""

    def __init__(self, number: int = 0) -> None:
        """Raises DovitError where there is no such GPU."""
        gpu = find_gpu(number)
        if isinstance(gpu, str):
            raise DovitError(gpu)
        from cuda.bindings import driver
        from cuda.core import Device

        self.name = gpu.name
        self.can_switch = gpu.driver_cuda >= SWITCH_CUDA
        self._driver: Any = driver
        self._device: Any = Device(number)
        self._taken: dict[int, Any] = {}  # by address
        with cuda_errors(f"{gpu.name} cannot be used"):
            self._device.set_current()
        self._context: Any = self._call("cuCtxGetCurrent")[0]

    @property
    def free_bytes(self) -> int:
        """What may still be allocated."""
        return int(self._call("cuMemGetInfo")[0])

    def allocate(self, size: int) -> int:
        """Memory on the device, of unspecified content."""
        with cuda_errors(f"{self.name}: {size / 2**20:,.0f} MiB cannot be allocated"):
            place = int(self._call("cuMemAlloc", size)[0])
        self._taken[place] = _Memory(self._driver, self._context, self._driver.cuMemFree, place)
        return place

    def pinned(self, size: int) -> np.ndarray:
        """Page-locked memory of the host, [size] uint8."""
        with cuda_errors(f"{size / 2**20:,.0f} MiB of pinned memory cannot be allocated"):
            place = int(self._call("cuMemHostAlloc", size, 0)[0])
        self._taken[place] = _Memory(self._driver, self._context, self._driver.cuMemFreeHost, place)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(place))

    def release(self, place: int) -> None:
        """Free memory of the device or pinned memory, by its address. Nothing may use it any longer."""
        del self._taken[place]

    def create_stream(self) -> Stream:
        """A non-blocking stream: it does not synchronise with the default stream."""
        with cuda_errors(f"{self.name}: no stream"):
            return self._device.create_stream()

    def create_graph_builder(self) -> GraphBuilder:
        """What captures a graph."""
        with cuda_errors(f"{self.name}: no graph"):
            return self._device.create_graph_builder()

    def captured_kinds(self, work: Callable[[int], None], stream: Any) -> list[str]:
        """See Device. By the driver itself, for a GraphBuilder must not end an invalidated capture."""
        handle = int(stream.handle)
        self._call("cuStreamBeginCapture", handle, self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        try:
            work(handle)
        except BaseException:
            status, graph = self._driver.cuStreamEndCapture(handle)
            if status == self._driver.CUresult.CUDA_SUCCESS:
                self._driver.cuGraphDestroy(graph)
            raise
        [graph] = self._call("cuStreamEndCapture", handle)
        try:
            return self._kinds(graph)
        finally:
            self._driver.cuGraphDestroy(graph)

    def _kinds(self, graph: Any) -> list[str]:
        count = self._call("cuGraphGetNodes", graph, 0)[1]
        kinds = []
        for node in self._call("cuGraphGetNodes", graph, count)[0] if count else ():
            [kind] = self._call("cuGraphNodeGetType", node)
            kinds.append(kind.name.removeprefix("CU_GRAPH_NODE_TYPE_"))
            if kinds[-1] == "GRAPH":
                kinds += self._kinds(self._call("cuGraphChildGraphNodeGetGraph", node)[0])
        return kinds

    def make_current(self) -> None:
        """Make the context of this device current for the calling thread."""
        self._device.set_current()

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Queue a copy in any direction."""
        self._call("cuMemcpyAsync", to, source, size, stream)

    def clear(self, place: int, size: int, stream: int) -> None:
        """Queue zeros."""
        self._call("cuMemsetD8Async", place, 0, size, stream)

    def create_event(self) -> Event:
        """An event with timing."""
        from cuda.core import EventOptions

        with cuda_errors(f"{self.name}: no event"):
            return self._device.create_event(EventOptions(timing_enabled=True))

    def record(self, event: Any, stream: int) -> None:
        """Queue the event."""
        self._call("cuEventRecord", event.handle, stream)

    def elapsed(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have been reached."""
        with cuda_errors(f"{self.name}: an event was not reached"):
            return float(end - start)

    def _call(self, name: str, *arguments: object) -> list[Any]:
        status, *values = getattr(self._driver, name)(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            raise DovitError(f"{self.name}: {name} failed: {text.decode() if text else status}")
        return values


class _Memory:
    """Memory that is freed with the object, on whichever thread that happens: freeing needs the context to be current."""

    def __init__(self, driver: Any, context: Any, free: Callable[[int], object], place: int) -> None:
        self._driver, self._context, self._free, self._place = driver, context, free, place

    def __del__(self) -> None:
        self._driver.cuCtxPushCurrent(self._context)
        self._free(self._place)
        self._driver.cuCtxPopCurrent()
