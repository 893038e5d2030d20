"""From a bundle's plans to a chain on a real GPU."""

from __future__ import annotations

from dovit.plugins.launch import Kernels
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.program import read_program
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.cuda_device import CudaDevice
from dovit.runtime.gpu.device import cuda_errors
from dovit.runtime.gpu.tensorrt_engine import shared_tensorrt
from dovit.runtime.plans import check_plans, detect_tensorrt


def open_chain(bundle: Bundle, plans: PlanSet, *, device: int = 0, graph: bool | None = None) -> GpuChain:
    """The chain of `plans` on GPU number `device`, warmed up and captured. Raises DovitError where this machine cannot."""
    check_plans(bundle.root, plans, detect_tensorrt(plans.flavour, device))
    if plans.plugin_version is not None:
        raise DovitError(
            f"{bundle.root}: the {plans.name} plans have the token pass inside (--plugins), for programs that run them by "
            f"themselves; dovit's chain needs plans without: dovit-export --engine {bundle.root} --backend {plans.flavour}"
        )
    program = read_program(bundle, plans)
    kernels = Kernels()
    with cuda_errors(f"{bundle.root}: the {plans.name} plans cannot be run"):
        gpu = CudaDevice(device)
        tensorrt = shared_tensorrt(plans.flavour, device)
        engines = {
            step.name: tensorrt.engine(step, bundle.path(step.plan.file), bundle.manifest.files[step.plan.file].sha256)
            for step in plans.steps
            if step.plan
        }
        chain = GpuChain(bundle.manifest, plans, program, engines, kernels, gpu, graph=graph)
        tensorrt.runtime_cache.save()
        return chain
