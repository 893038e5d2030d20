"""The chain over torch blocks on the stand-in for a GPU: no export, so quick to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fake_gpu import EmulatedKernels, FakeDevice, FakeKernels, KernelNode

from dovit.benchmarks.torch_blocks import TorchBlocks, TorchEngine
from dovit.benchmarks.torch_plans import manifest_of, plans_of
from dovit.engines.planning.write import plan_program
from dovit.export.model import DoViT
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.device import PlanCall


@dataclass
class QueuedEngine:
    """Torch on the host runs at once; on a GPU it is queued."""

    device: FakeDevice
    engine: TorchEngine

    @property
    def scratch_bytes(self) -> int:
        return self.engine.scratch_bytes

    def enqueue(self, call: PlanCall, stream: int) -> None:
        self.device.submit(stream, KernelNode(lambda: self.engine.enqueue(call, stream)))

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        return self.engine.why_not_capturable(call, stream)


def torch_chain(
    model: DoViT,
    capacities: Sequence[int],
    precision: Precision = "fp32",
    batch: int = 1,
    device: FakeDevice | None = None,
    graph: bool | None = None,
    kernels: EmulatedKernels | None = None,
) -> GpuChain:
    """The chain of `model` on a stand-in, whose kernels are numpy's by default."""
    device = device or FakeDevice()
    plans, blocks = plans_of(model, precision, batch), TorchBlocks(model, precision)
    engines = {step.name: QueuedEngine(device, blocks.engine(step)) for step in plans.steps if step.kind == "plan"}
    launchers = kernels or FakeKernels(device)
    manifest = manifest_of(model, capacities)
    return GpuChain(
        manifest, plans, plan_program(manifest, plans.steps, batch), engines, launchers, device, graph=graph
    )
