"""Loading: a bundle's folder becomes a session on the backend that the caller chose."""

from __future__ import annotations

import logging
import os
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dovit.runtime.arguments import is_one_of, shown
from dovit.runtime.bundle.manifest import Schedule
from dovit.runtime.bundle.open import Bundle, with_bundle
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.openvino.device import cpu_precision
from dovit.runtime.plans import choose_plans
from dovit.runtime.providers import Provider, open_cpu_chain
from dovit.runtime.session import Session

LOG = logging.getLogger("dovit")
Backend = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
MAX_THREADS = 4096  # as in C++; ONNX Runtime starts them all at once, and hangs where the system has no more


def load(
    path: str | Path,
    backend: Backend = "auto",
    *,
    threads: int | None = None,
    low_memory: bool = False,
    precision: Precision | None = None,
    device: int = 0,
    graph: bool | None = None,
    provider: Provider = "auto",
    check_accuracy: bool = True,
    cache: str | Path | None = None,
) -> Session:
    """Load the bundle in the folder `path`.

    `auto` selects `onnxruntime` on the CPU. The TensorRT backends have not run on a GPU yet, so they must be named.
    For `onnxruntime`: `provider`, what runs the steps on the CPU, ONNX Runtime's own (`cpu`) or OpenVINO (`openvino`, extra
    `dovit[openvino]`), default what the variable DOVIT_PROVIDER says or the faster, which is measured when a small model is
    first loaded; `threads`, the number of CPU threads, default all cores that the process may use; `precision`, fp32 (default)
    or, with OpenVINO on a CPU that has its instructions, bf16, in which confidences, sums of stopped tokens and logits stay
    float32. bf16 is compared with float32 when a bundle is first loaded so, and refused where they differ too much, as is an
    int8 bundle with OpenVINO on a CPU without VNNI, unless `check_accuracy` is False; `cache`, a folder in which OpenVINO keeps
    what it compiled, so that the next process starts faster; `low_memory`, with ONNX Runtime: no prepacked copy of the weights,
    which is somewhat slower.
    For plans: `precision`, default that built last; `device`, the GPU's number; `graph`, the whole image as one CUDA graph
    (CUDA 12.8) or one graph per segment, default what the driver supports.
    What is given and is for another backend has no effect, of which the logger `dovit` warns.
    Raises DovitError where the bundle or the machine does not allow it, UsageError for an argument that cannot be.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"path is a {type(path).__name__}: give the folder of the bundle, as a str or a Path")
    if not is_one_of(backend, get_args(Backend)):
        raise UsageError(f"unknown backend {shown(backend)}: choose one of {', '.join(get_args(Backend))}")
    if threads is not None:
        _check_number(
            "threads",
            threads,
            1,
            MAX_THREADS,
            f"a number of CPU threads, 1 to {MAX_THREADS}, or leave it out for all cores",
        )
    _check_number(
        "device", device, 0, 2**31 - 1, "the number of a GPU from 0; what runs the model is chosen by backend="
    )
    if precision is not None and not is_one_of(precision, get_args(Precision)):
        raise UsageError(f"unknown precision {shown(precision)}: choose one of {', '.join(get_args(Precision))}")
    flags = {"low_memory": low_memory, "check_accuracy": check_accuracy}
    if graph is not None:
        flags["graph"] = graph
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise UsageError(f"{name} is a {type(flag).__name__}: give True or False")
    if not is_one_of(provider, get_args(Provider)):
        raise UsageError(f"unknown provider {shown(provider)}: choose one of {', '.join(get_args(Provider))}")
    if cache is not None and not isinstance(cache, str | os.PathLike):
        raise UsageError(f"cache is a {type(cache).__name__}: give a folder, as a str or a Path")
    if backend in ("tensorrt", "tensorrt-rtx"):
        others = {"provider": provider != "auto", "threads": threads is not None, "low_memory": low_memory}
        others |= {"check_accuracy": not check_accuracy, "cache": cache is not None}
    else:
        others = {"device": device != 0, "graph": graph is not None}
    if given := [name for name, differs in others.items() if differs]:
        LOG.warning("no effect with backend %s: %s; leave that out, or give its backend", backend, ", ".join(given))

    def open_session(bundle: Bundle) -> Session:
        manifest = bundle.manifest
        if backend == "tensorrt" or backend == "tensorrt-rtx":
            from dovit.runtime.gpu.open import open_chain

            plans = choose_plans(bundle.root, manifest, backend, precision)
            LOG.debug("%s: loading the %s plans for GPU %d", bundle.root, plans.name, device)
            return Session(manifest, open_chain(bundle, plans, device=device, graph=graph), backend, "bucketed")
        computed_in = cpu_precision(precision)
        _check_onnx(bundle)
        chain, chosen = open_cpu_chain(
            bundle,
            provider,
            computed_in,
            threads=None if threads is None else int(threads),
            low_memory=bool(low_memory),
            check_accuracy=bool(check_accuracy),
            cache=None if cache is None else Path(cache),
        )
        # bf16 is OpenVINO's, which takes long over token counts that it has not seen
        schedule: Schedule = "rounded" if computed_in == "bf16" else "exact"
        return Session(manifest, chain, "onnxruntime", schedule, provider=chosen, precision=computed_in)

    return with_bundle(path, open_session)


def _check_number(name: str, value: Any, least: int, most: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UsageError(f"{name}={shown(value)}: give {what}")


def _check_onnx(bundle: Bundle) -> None:
    if any(step.onnx is None for step in bundle.manifest.steps):
        there = ", ".join(plans.name for plans in bundle.manifest.plans)
        raise DovitError(
            f"{bundle.root}: holds plans only ({there}): choose their backend on a machine with a GPU, or add ONNX Runtime's "
            f"files with dovit-export --ckpt model.pth --out {bundle.root} --backend onnxruntime"
        )
    if bundle.manifest.precision == "fp8":
        raise DovitError(
            f"{bundle.root}: its products are fp8, which no CPU computes: choose the backend of its plans on a machine with a "
            "GPU, or export it with --precision int8"
        )
