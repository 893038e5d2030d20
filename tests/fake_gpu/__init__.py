"""A GPU in the host's memory: what is queued runs when somebody waits for it, what is captured runs when it is launched.

It keeps to CUDA's rules where a mistake in the chain would show: memory is poisoned, nothing is there before a stream is
synchronised, a condition begins every launch at its default, a switch with a number out of range runs nothing, and a recording
that was not ended cannot be launched. Kernels are written down from the design, in numpy, engines are ONNX Runtime.
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
