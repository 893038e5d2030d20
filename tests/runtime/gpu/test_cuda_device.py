"""Calls of the CUDA driver, recorded by a stand-in for cuda.bindings' driver module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.cuda_device import CudaDevice

SUCCESS, INVALIDATED = "CUDA_SUCCESS", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"


class Driver:
    """Graphs are lists of node kinds, a child graph's node is the graph itself."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=SUCCESS)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.captured: list[Any] = []
        self.end = SUCCESS

    def cuMemAlloc(self, size: int) -> tuple[str, int]:
        return SUCCESS, 4096

    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[str, int]:
        return SUCCESS, 8192

    def cuStreamEndCapture(self, stream: int) -> tuple[str, Any]:
        self.calls.append(("cuStreamEndCapture", stream))
        return self.end, self.captured if self.end == SUCCESS else None

    def cuGraphGetNodes(self, graph: list[Any], count: int) -> tuple[str, list[Any], int]:
        return SUCCESS, graph[:count], len(graph)

    def cuGraphNodeGetType(self, node: Any) -> tuple[str, SimpleNamespace]:
        kind = "GRAPH" if isinstance(node, list) else node
        return SUCCESS, SimpleNamespace(name=f"CU_GRAPH_NODE_TYPE_{kind}")

    def cuGraphChildGraphNodeGetGraph(self, node: list[Any]) -> tuple[str, list[Any]]:
        return SUCCESS, node

    def cuGetErrorString(self, status: str) -> tuple[str, bytes]:
        return SUCCESS, status.encode()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[str, None]:
            self.calls.append((name, *arguments))
            return SUCCESS, None

        return call


@pytest.fixture
def device() -> CudaDevice:
    made = CudaDevice.__new__(CudaDevice)  # whose __init__ needs a GPU
    made.name, made._driver, made._context, made._taken = "GPU", Driver(), "context", {}
    return made


STREAM = SimpleNamespace(handle=7)


def test_memory_is_freed_with_the_context_current(device: CudaDevice) -> None:
    """Python frees on whichever thread drops the last reference, where no context need be current."""
    device.release(device.allocate(16))
    push, pop = ("cuCtxPushCurrent", "context"), ("cuCtxPopCurrent",)
    assert device._driver.calls == [push, ("cuMemFree", 4096), pop]
    device._driver.calls.clear()
    device.pinned(0)
    device.release(8192)
    assert device._driver.calls == [push, ("cuMemFreeHost", 8192), pop]


def test_kinds_of_a_capture(device: CudaDevice) -> None:
    """Those of child graphs too; nothing stays behind."""
    device._driver.captured = ["KERNEL", ["MEMCPY", ["HOST"]], "MEMSET"]
    ran: list[int] = []
    assert device.captured_kinds(ran.append, STREAM) == ["KERNEL", "GRAPH", "MEMCPY", "GRAPH", "HOST", "MEMSET"]
    assert ran == [7] and device._driver.calls[0] == ("cuStreamBeginCapture", 7, "relaxed")
    assert [name for name, *_ in device._driver.calls] == [
        "cuStreamBeginCapture",
        "cuStreamEndCapture",
        "cuGraphDestroy",
    ]


def test_an_invalidated_capture_is_a_sentence(device: CudaDevice) -> None:
    device._driver.end = INVALIDATED
    with pytest.raises(DovitError, match="GPU: cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        device.captured_kinds(lambda stream: None, STREAM)
    assert not any(name == "cuGraphDestroy" for name, *_ in device._driver.calls)


@pytest.mark.parametrize(("end", "destroyed"), [(SUCCESS, 1), (INVALIDATED, 0)])
def test_a_capture_ends_where_its_work_fails(device: CudaDevice, end: str, destroyed: int) -> None:
    device._driver.end = end

    def refuse(stream: int) -> None:
        raise DovitError("TensorRT refuses")

    with pytest.raises(DovitError, match=r"^TensorRT refuses$"):
        device.captured_kinds(refuse, STREAM)
    names = [name for name, *_ in device._driver.calls]
    assert names[:2] == ["cuStreamBeginCapture", "cuStreamEndCapture"]
    assert names.count("cuGraphDestroy") == destroyed
