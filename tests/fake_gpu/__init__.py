"""A GPU in the host's memory: queued work runs when a caller synchronizes, captured work when its graph is launched.

It follows the rules of CUDA that a mistake in the chain would break: memory is poisoned, results are not there before a stream is
synchronized, a conditional handle has its default at every launch, a SWITCH node with a value out of range runs nothing, and a
capture that was not ended cannot be launched. Kernels are numpy, written from the design; engines are ONNX Runtime.
"""

from fake_gpu.device import FakeDevice, array
from fake_gpu.engines import FakeEngine
from fake_gpu.graphs import (
    EventRecordNode,
    FakeGraph,
    FakeGraphBuilder,
    FakeStream,
    HostCallbackNode,
    KernelNode,
    MemcpyNode,
    SwitchNode,
)
from fake_gpu.kernels import EmulatedKernels, FakeKernels

__all__ = [
    "EmulatedKernels",
    "EventRecordNode",
    "FakeDevice",
    "FakeEngine",
    "FakeGraph",
    "FakeGraphBuilder",
    "FakeKernels",
    "FakeStream",
    "HostCallbackNode",
    "KernelNode",
    "MemcpyNode",
    "SwitchNode",
    "array",
]
