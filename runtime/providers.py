"""What runs a bundle's steps on a CPU: ONNX Runtime's own provider, or OpenVINO."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dovit.runtime.arguments import is_one_of
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain
from dovit.runtime.engine import Engine, OnnxRuntimeEngine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.machine import int8_sums_saturate
from dovit.runtime.openvino import device
from dovit.runtime.openvino.device import CpuPrecision, CpuProvider

if TYPE_CHECKING:
    from dovit.runtime.openvino.engine import OpenVinoEngine

LOG = logging.getLogger("dovit")
Provider = Literal["auto", CpuProvider]
VARIABLE = "DOVIT_PROVIDER"  # what `auto` means, for programs whose calls cannot be changed
SATURATES = "this CPU has no VNNI, and OpenVINO's sums of int8 products saturate there"


@dataclass(frozen=True)
class ChosenProvider:
    """`why`: a part of a sentence. `automatic`: either could be used, and nothing said which."""

    name: CpuProvider
    why: str
    automatic: bool = False


def open_cpu_chain(
    bundle: Bundle,
    provider: Provider,
    precision: CpuPrecision,
    *,
    threads: int | None,
    low_memory: bool,
    check_accuracy: bool,
    cache: Path | None,
) -> tuple[Chain, ChosenProvider]:
    """The chain over a bundle's ONNX files, and the provider that runs it. Raises DovitError or UsageError."""

    @functools.cache
    def chain(provider: CpuProvider, precision: CpuPrecision) -> Chain:
        if provider == "cpu":
            return Chain(bundle.manifest, _onnxruntime(bundle, threads, low_memory))
        engines = _openvino(bundle, threads, precision, cache)
        return Chain(bundle.manifest, engines, labels_apart=engines[-1].makes_apart("labels"))

    asked, why = asked_provider(provider)
    if asked == "auto" and low_memory:
        chosen = ChosenProvider("cpu", "low_memory is ONNX Runtime's")
    elif asked == "cpu":
        chosen = ChosenProvider("cpu", why)
    elif (reason := _why_not(bundle)) is not None:
        if asked == "openvino":
            raise DovitError(f"provider openvino cannot be used: {reason}")
        chosen = ChosenProvider("cpu", reason)
    elif asked == "openvino":
        if check_accuracy and _saturates(bundle):
            raise UsageError(
                f"provider openvino: {SATURATES}: take the provider cpu, whose sums are exact, or check_accuracy=False "
                "(--no-check-accuracy) to have it all the same"
            )
        chosen = ChosenProvider("openvino", why)
    elif _saturates(bundle):
        chosen = ChosenProvider("cpu", SATURATES, automatic=True)
    elif precision == "bf16" or cache is not None:
        chosen = ChosenProvider("openvino", f"{'bf16' if precision == 'bf16' else 'a cache'} is OpenVINO's")
    else:
        from dovit.runtime.openvino.speed import faster_provider

        chosen = ChosenProvider(*faster_provider(bundle, threads, chain), automatic=True)
    if low_memory and chosen.name == "openvino":
        raise UsageError("low_memory is for the provider cpu, and openvino was asked for: leave one of them out")
    LOG.debug("%s: provider %s (%s), %s", bundle.root, chosen.name, chosen.why, precision)
    if chosen.name == "cpu":
        if precision != "fp32":
            raise UsageError(
                f"precision {precision} on a CPU needs the provider openvino, and cpu was chosen ({chosen.why}): use fp32, or "
                "change that"
            )
        if cache is not None:
            raise UsageError(
                f"cache is for the provider openvino, and cpu was chosen ({chosen.why}): leave it out, or change that"
            )
        return chain("cpu", "fp32"), chosen
    device.check_precision(precision)
    found = chain("openvino", precision)
    if precision == "bf16" and check_accuracy:
        from dovit.runtime.openvino.accuracy import known_accuracy

        known_accuracy(bundle, found, lambda: chain("openvino", "fp32")).check(bundle.root)
    return found, chosen


def asked_provider(provider: Provider) -> tuple[Provider, str]:
    """What `provider` means, which for auto the variable DOVIT_PROVIDER may say, and why. Raises UsageError where that says
    something else."""
    if provider == "auto" and (told := os.environ.get(VARIABLE)):
        if not is_one_of(told, get_args(Provider)):
            raise UsageError(f"{VARIABLE}={told}: choose one of {', '.join(get_args(Provider))}")
        return told, f"{VARIABLE} is set"  # type: ignore[return-value]
    return provider, "asked for"


def _why_not(bundle: Bundle) -> str | None:
    """None where OpenVINO can run `bundle`, else the reason."""
    reason = device.why_not()
    if reason is None and not all(step.openvino for step in bundle.manifest.steps):
        return f"{bundle.root} has no files for it, as an older dovit made it: export it again"
    return reason


def _saturates(bundle: Bundle) -> bool:
    return bundle.manifest.precision == "int8" and int8_sums_saturate()


def _onnxruntime(bundle: Bundle, threads: int | None, low_memory: bool) -> Sequence[Engine]:
    engines = []
    for step in bundle.manifest.steps:
        engine = OnnxRuntimeEngine(step.name, bundle.onnx(step), threads=threads, prepack=not low_memory)
        engine.check(step.inputs, step.outputs)
        engines.append(engine)
    return engines


def _openvino(bundle: Bundle, threads: int | None, precision: CpuPrecision, cache: Path | None) -> list[OpenVinoEngine]:
    from dovit.runtime.openvino.engine import OpenVinoEngine

    engines = []
    for step in bundle.manifest.steps:
        files = [bundle.path(name) for name in step.openvino]
        engine = OpenVinoEngine(step.name, files, threads=threads, precision=precision, cache=cache)
        engine.check(step.inputs, step.outputs)
        engines.append(engine)
    return engines
