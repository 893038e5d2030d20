"""What runs a bundle's steps on a CPU: ONNX Runtime's own provider, or OpenVINO."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain
from dovit.runtime.engine import Engine, OnnxRuntimeEngine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.openvino import device
from dovit.runtime.openvino.device import CpuPrecision

LOG = logging.getLogger("dovit")
Provider = Literal["auto", "cpu", "openvino"]
VARIABLE = "DOVIT_PROVIDER"  # what `auto` means, for programs whose calls cannot be changed


def open_cpu_chain(
    bundle: Bundle,
    provider: Provider,
    precision: CpuPrecision,
    *,
    threads: int | None,
    low_memory: bool,
    check_accuracy: bool,
    cache: Path | None,
) -> tuple[Chain, Literal["cpu", "openvino"]]:
    """The chain over a bundle's ONNX files, and the provider that runs it. Raises DovitError or UsageError."""
    if low_memory and provider == "auto":
        chosen, why = choose_provider(bundle, "cpu")[0], "low_memory is ONNX Runtime's"
    else:
        chosen, why = choose_provider(bundle, provider)
    if low_memory and chosen == "openvino":
        raise UsageError("low_memory is for the provider cpu, and openvino was asked for: leave one of them out")
    LOG.debug("%s: provider %s (%s), %s", bundle.root, chosen, why, precision)
    if chosen == "cpu":
        if precision != "fp32":
            raise UsageError(
                f"precision {precision} on a CPU needs the provider openvino, and cpu was chosen ({why}): use fp32, or mend that"
            )
        if cache is not None:
            raise UsageError(
                f"cache is for the provider openvino, and cpu was chosen ({why}): leave it out, or mend that"
            )
        return Chain(bundle.manifest, _onnxruntime(bundle, threads, low_memory)), "cpu"
    device.check_precision(precision)

    def chain(precision: CpuPrecision) -> Chain:
        return Chain(bundle.manifest, _openvino(bundle, threads, precision, cache))

    found = chain(precision)
    if precision == "bf16" and check_accuracy:
        from dovit.runtime.openvino.accuracy import known_accuracy

        known_accuracy(bundle, found, lambda: chain("fp32")).check(bundle.root)
    return found, "openvino"


def choose_provider(bundle: Bundle | None, provider: Provider) -> tuple[Literal["cpu", "openvino"], str]:
    """The provider that is meant, and why; without a bundle, for one of this dovit's. Raises DovitError where the one that was
    asked for cannot be used, UsageError for an unknown one."""
    why = "asked for"
    if provider == "auto" and (told := os.environ.get(VARIABLE)):
        if told not in get_args(Provider):
            raise UsageError(f"{VARIABLE}={told}: choose one of {', '.join(get_args(Provider))}")
        provider, why = told, f"{VARIABLE} is set"  # type: ignore[assignment]
    if provider == "cpu":
        return "cpu", why
    reason = device.why_not()
    if reason is None and bundle is not None and not all(step.openvino for step in bundle.manifest.steps):
        reason = f"{bundle.root} has no files for it, as an older dovit made it: export it again"
    if reason is None:
        return "openvino", "it is installed" if provider == "auto" else why
    if provider == "openvino":
        raise DovitError(f"provider openvino cannot be used: {reason}")
    return "cpu", reason


def _onnxruntime(bundle: Bundle, threads: int | None, low_memory: bool) -> Sequence[Engine]:
    engines = []
    for step in bundle.manifest.steps:
        engine = OnnxRuntimeEngine(step.name, bundle.onnx(step), threads=threads, prepack=not low_memory)
        engine.check(step.inputs, step.outputs)
        engines.append(engine)
    return engines


def _openvino(bundle: Bundle, threads: int | None, precision: CpuPrecision, cache: Path | None) -> Sequence[Engine]:
    from dovit.runtime.openvino.engine import OpenVinoEngine

    engines = []
    for step in bundle.manifest.steps:
        files = [bundle.path(name) for name in step.openvino]
        engine = OpenVinoEngine(step.name, files, threads=threads, precision=precision, cache=cache)
        engine.check(step.inputs, step.outputs)
        engines.append(engine)
    return engines
