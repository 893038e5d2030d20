"""The chain on a real GPU over torch blocks."""

from __future__ import annotations

from collections.abc import Sequence

from dovit.benchmarks.torch_blocks import TorchBlocks
from dovit.benchmarks.torch_plans import manifest_of, plans_of
from dovit.engines.planning.write import plan_program
from dovit.export.model import DoViT
from dovit.plugins.launch import Kernels
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.cuda_device import CudaDevice
from dovit.runtime.gpu.device import DeviceEngine


def torch_chain(
    model: DoViT,
    capacities: Sequence[int],
    precision: Precision = "fp32",
    *,
    batch: int = 1,
    graph: bool | None = None,
    device: int = 0,
) -> GpuChain:
    """Warmed up and captured on GPU number `device`. Raises DovitError where this machine cannot."""
    gpu = CudaDevice(device)
    plans, blocks = plans_of(model, precision, batch), TorchBlocks(model, precision, f"cuda:{device}")
    engines: dict[str, DeviceEngine] = {s.name: blocks.engine(s) for s in plans.steps if s.kind == "plan"}
    manifest = manifest_of(model, capacities)
    return GpuChain(manifest, plans, plan_program(manifest, plans.steps, batch), engines, Kernels(), gpu, graph=graph)
