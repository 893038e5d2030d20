"""Selects the plan set of a bundle that can run on this machine, with the reason where none can."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dovit import plugins
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import Flavour, PlanSet, Precision
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import Gpu, find_gpu

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PORTABLE_FROM = "8.0"  # what a TensorRT-RTX plan without targets runs on: Ampere and newer


@dataclass(frozen=True)
class DetectedTensorRT:
    """The TensorRT library of this machine (None: not installed) and its GPU, or why there is none. `capabilities`: the compute
    capabilities that the library supports; None where it has no such list."""

    version: str | None
    gpu: Gpu | str
    capabilities: tuple[str, ...] | None = None


def detect_tensorrt(flavour: Flavour, device: int = 0) -> DetectedTensorRT:
    """The installed TensorRT library of `flavour`, and GPU number `device`."""
    try:
        module = importlib.import_module(MODULES[flavour])
        version = str(module.__version__)
    except (ImportError, OSError, AttributeError):
        return DetectedTensorRT(None, find_gpu(device))
    return DetectedTensorRT(version, find_gpu(device), known_capabilities(module))


def known_capabilities(module: ModuleType) -> tuple[str, ...] | None:
    """The compute capabilities that a version of TensorRT-RTX builds for and runs on, in their order: SM121 is 12.1. None for
    full TensorRT, which has no such list."""
    listed = getattr(module, "ComputeCapability", None)
    if listed is None:
        return None
    names = [name for name in listed.__members__ if re.fullmatch(r"SM\d+", name)]
    return tuple(sorted((f"{name[2:-1]}.{name[-1]}" for name in names), key=_numbers))


def unsupported_gpu(flavour: Flavour, found: DetectedTensorRT) -> str | None:
    """Why a GPU that was found cannot run any plan of `flavour`, in one sentence; None where it can."""
    assert isinstance(found.gpu, Gpu)
    if found.capabilities is None or found.gpu.compute_capability in found.capabilities:
        return None
    return (
        f"{TITLES[flavour]} {found.version} runs on compute capability {', '.join(found.capabilities)}, this GPU "
        f"({found.gpu.name}) has {found.gpu.compute_capability}: use --backend tensorrt, or onnxruntime on the CPU"
    )


def why_not(flavour: Flavour, found: DetectedTensorRT) -> str | None:
    """None where this machine can run plans of `flavour`, else the reason in a sentence."""
    if found.version is None:  # first: what find_gpu() says to install need not bring this flavour
        return f"not installed here: pip install 'dovit[{flavour}]'"
    if isinstance(found.gpu, str):
        return found.gpu
    return unsupported_gpu(flavour, found) or plugins.left_out()


def choose_plans(root: Path, manifest: Manifest, flavour: Flavour, precision: Precision | None = None) -> PlanSet:
    """The bundle's plan set of `flavour`, in `precision` where given, else the one built last. Raises DovitError."""
    fits = [s for s in manifest.plans if s.flavour == flavour and precision in (None, s.precision)]
    if not fits:
        wanted = f"{flavour} {precision}" if precision else flavour
        there = ", ".join(s.name for s in manifest.plans) or "none"
        raise DovitError(
            f"{root}: no {wanted} plans in this bundle (there are: {there}); build them: {_command(root, flavour, precision)}"
        )
    return fits[-1]


def check_plans(root: Path, plans: PlanSet, found: DetectedTensorRT) -> None:
    """Raises DovitError where `plans` cannot run with what was found: which field disagrees, and what rebuilds them."""
    rebuild = f"rebuild the plans: {_command(root, plans.flavour, plans.precision)}"
    title = TITLES[plans.flavour]
    if found.version is None:
        raise DovitError(
            f"{root}: the {plans.name} plans need {title} {plans.version}, which is not installed here: "
            f"pip install 'dovit[{plans.flavour}]'"
        )
    if found.version != plans.version:
        raise DovitError(
            f"{root}: the bundle's version says {title} {plans.version}, {found.version} is installed; {rebuild}"
        )
    if plans.flavour == "tensorrt-rtx" and not plans.user_allocation:
        raise DovitError(
            f"{root}: the {plans.name} plans were built without REQUIRE_USER_ALLOCATION, and cannot be captured into CUDA "
            f"graphs; {rebuild}"
        )
    if isinstance(found.gpu, str):
        raise DovitError(
            f"{root}: the {plans.name} plans need an NVIDIA GPU: {found.gpu}; --backend onnxruntime runs on a CPU"
        )
    capability = found.gpu.compute_capability
    unknown = unsupported_gpu(plans.flavour, found)
    if unknown:
        raise DovitError(f"{root}: {unknown}")
    if plans.compute_capabilities and capability not in plans.compute_capabilities:
        raise DovitError(
            f"{root}: the bundle's compute_capabilities say {', '.join(plans.compute_capabilities)}, this GPU "
            f"({found.gpu.name}) has {capability}; {rebuild}"
        )
    if not plans.compute_capabilities and _numbers(capability) < _numbers(PORTABLE_FROM):
        raise DovitError(
            f"{root}: the bundle's compute_capabilities are left open, which means {PORTABLE_FROM} and newer, this GPU "
            f"({found.gpu.name}) has {capability}; {rebuild} --compute-capability {capability}"
        )
    if plans.cuda is not None and found.gpu.driver_cuda[0] < plans.cuda:
        driver = ".".join(map(str, found.gpu.driver_cuda))
        raise DovitError(
            f"{root}: the bundle's cuda says {plans.cuda}, this machine's driver runs CUDA {driver} at most: update the driver"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _command(root: Path, flavour: Flavour, precision: Precision | None) -> str:
    return f"dovit-export --engine {root} --backend {flavour}" + (f" --precision {precision}" if precision else "")
