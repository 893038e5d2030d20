"""What is installed here and what each backend can do with it: `dovit-export --list-backends`."""

from __future__ import annotations

from dataclasses import dataclass

from dovit.engines.flavours import FLAVOURS, check_builder
from dovit.runtime.bundle.plans import Flavour
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import Gpu
from dovit.runtime.plans import DetectedTensorRT, detect_tensorrt, why_not


@dataclass(frozen=True)
class BackendReport:
    """One backend on this machine. `build` and `run` are yes, or why not."""

    name: str
    version: str | None
    build: str
    run: str


def list_backends() -> list[BackendReport]:
    """Every backend, the ones for GPUs first."""
    reports = []
    for name in FLAVOURS:
        found = detect_tensorrt(name)
        try:
            check_builder(name)
            build = "yes" if FLAVOURS[name].needs_gpu else "yes, no GPU needed"
        except DovitError as error:
            build = f"no: {error}"
        reports.append(BackendReport(name, found.version, build, _run(name, found)))
    reports.append(_onnxruntime())
    return reports


def _run(flavour: Flavour, found: DetectedTensorRT) -> str:
    reason = why_not(flavour, found)
    if reason is not None:
        return f"no: {reason}"
    assert isinstance(found.gpu, Gpu)
    return f"yes, on {found.gpu.name}; docs/gpu-support.md says what has been seen to run"


def _onnxruntime() -> BackendReport:
    try:
        import onnxruntime
    except ImportError as error:
        return BackendReport("onnxruntime", None, "nothing to build: it runs the ONNX files", f"no: {error}")
    return BackendReport(
        "onnxruntime", onnxruntime.__version__, "nothing to build: it runs the ONNX files", "yes, on the CPU"
    )
