"""What is installed here and what each backend can do with it: `dovit-export --list-backends`."""

from __future__ import annotations

from dataclasses import dataclass

from dovit.engines.flavours import FLAVOURS, check_builder
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import Gpu, find_gpu
from dovit.runtime.plans import look


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
    gpu = find_gpu()
    for name in FLAVOURS:
        found = look(name)
        try:
            check_builder(name)
            build = "yes" if FLAVOURS[name].needs_gpu else "yes, no GPU needed"
        except DovitError as error:
            build = f"no: {error}"
        run = "no: the chain on a GPU is not written yet" if isinstance(gpu, Gpu) else f"no: {gpu}"
        reports.append(BackendReport(name, found.version, build, run))
    reports.append(_onnxruntime())
    return reports


def _onnxruntime() -> BackendReport:
    try:
        import onnxruntime
    except ImportError as error:
        return BackendReport("onnxruntime", None, "nothing to build: it runs the ONNX files", f"no: {error}")
    return BackendReport(
        "onnxruntime", onnxruntime.__version__, "nothing to build: it runs the ONNX files", "yes, on the CPU"
    )
