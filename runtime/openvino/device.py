"""OpenVINO's CPU device: whether it can be used, in which precisions, and with which options."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal

from dovit.runtime.bundle.plans import Precision
from dovit.runtime.errors import DovitError, UsageError, clipped

CpuProvider = Literal["cpu", "openvino"]  # cpu: ONNX Runtime's own
CpuPrecision = Literal["fp32", "bf16"]
MISSING = "the package openvino is not installed: pip install 'dovit[openvino]'"


@cache
def core() -> Any:
    """The process's openvino.Core. Raises DovitError where the package is missing or does not load."""
    try:
        import openvino
    except ImportError as error:
        reason = MISSING if error.name == "openvino" else f"openvino cannot be imported ({error})"
        raise DovitError(f"provider openvino cannot be used: {reason}") from None
    try:
        return openvino.Core()
    except Exception as error:  # OpenVINO's own types, or RuntimeError
        raise DovitError(f"provider openvino cannot be used: {reason_of(error)}") from None


def build() -> str:
    """OpenVINO's version and the commit that it was built from."""
    import openvino

    return str(openvino.get_version())


def why_not() -> str | None:
    """None where OpenVINO's CPU device is there, else the reason in a sentence."""
    try:
        devices = core().available_devices
    except DovitError as error:
        return str(error).partition(": ")[2]
    return None if "CPU" in devices else "openvino has no CPU device here"


@cache
def computes_bf16() -> bool:
    """Whether this CPU has bf16 instructions (AVX512-BF16 or AMX) that OpenVINO uses. False where OpenVINO is not there."""
    return why_not() is None and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_precision(asked: Precision | None) -> CpuPrecision:
    """What is computed in on a CPU where `asked` is asked for. Raises UsageError for a precision that only plans have."""
    if asked == "fp16":
        raise UsageError("precision fp16 is for plans: on a CPU choose fp32 or bf16")
    return asked or "fp32"


def check_precision(precision: CpuPrecision) -> None:
    """Raises UsageError for bf16 on a CPU without it: it would run in float32 under that name. DovitError without OpenVINO."""
    if precision == "bf16" and not computes_bf16():
        if (reason := why_not()) is not None:
            raise DovitError(f"precision bf16 needs the provider openvino, which cannot be used: {reason}")
        raise UsageError(
            "precision bf16: this CPU has no bf16 instructions (AVX512-BF16 or AMX): use fp32, which is what it computes in"
        )


def options_for(threads: int | None, precision: CpuPrecision) -> dict[str, Any]:
    """Of one compiled model: one image at a time on `threads` cores, default all that the process may use."""
    return {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
        "ENABLE_HYPER_THREADING": True,  # else `threads` logical cores may become half as many threads
        "ENABLE_CPU_PINNING": False,  # a library must not bind the program's threads to cores
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }


def reason_of(error: Exception) -> str:
    """The last informative line of OpenVINO's message, which has many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return clipped((lines or [type(error).__name__])[-1], 300)
