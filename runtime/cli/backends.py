"""What `dovit-run --list-backends` prints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import get_args

from dovit.runtime.bundle.plans import Flavour, Precision
from dovit.runtime.cli.output import escaped, new_table, output_console, print_table
from dovit.runtime.machine import Gpu
from dovit.runtime.openvino import device
from dovit.runtime.openvino.speed import LARGE, known_speeds
from dovit.runtime.plans import detect_tensorrt, why_not
from dovit.runtime.providers import VARIABLE, asked_provider


@dataclass(frozen=True)
class BackendRow:
    """A backend, on a CPU with a provider. `precisions`: that it computes in here, none where it is not usable; `auto`: whether
    `auto` can take it, by bundle and precision where it can take two; `note`: for people."""

    backend: str
    provider: str | None
    usable: bool
    precisions: tuple[str, ...]
    auto: bool
    note: str


def print_backends(*, as_json: bool) -> None:
    """What can run bundles here, what `auto` takes and why, and the bundles for which that was measured."""
    asked, _ = asked_provider("auto")
    reason = device.why_not()
    rows = [
        BackendRow("onnxruntime", "cpu", True, ("fp32",), asked != "openvino", "computes in fp32"),
        _openvino(reason, auto=asked == "openvino" or (asked == "auto" and reason is None)),
        *map(_plans, get_args(Flavour)),
    ]
    takes = "auto takes onnxruntime with the provider "
    if asked != "auto":
        takes += f"{asked}: {VARIABLE} is set"
    elif reason:
        takes += f"cpu: {reason}"
    else:
        takes += (
            f"openvino for bf16 and for models from {LARGE / 1e9:.0f} GMACs an image on, and for smaller ones the provider "
            "that was faster when the bundle was first loaded"
        )
    speeds = known_speeds() if asked == "auto" and reason is None else []
    if as_json:
        measured = [{**speed.model_dump(), "faster": speed.faster} for speed in speeds]
        listed = {"backends": [asdict(row) for row in rows], "auto": takes, "measured": measured}
        print(json.dumps(listed, ensure_ascii=False))
        return
    console = output_console()
    table = new_table("backend", "provider", "usable", "", left=(0, 1, 2, 3))
    for row in rows:
        table.add_row(row.backend, row.provider or "", "yes" if row.usable else "no", escaped(row.note))
    print_table(console, "", table, takes)
    if not speeds:
        return
    measured_table = new_table(
        "measured on this CPU", "threads", "cpu,\nCPU ms", "openvino,\nCPU ms", "openvino / cpu", "auto takes"
    )
    for speed in speeds:
        measured_table.add_row(
            escaped(speed.bundle),
            str(speed.threads),
            f"{speed.onnxruntime_cpu_ms:.1f}",
            f"{speed.openvino_cpu_ms:.1f}",
            f"{speed.openvino_over_onnxruntime:.2f}",
            speed.faster,
        )
    print_table(console, "", measured_table)


def _openvino(reason: str | None, *, auto: bool) -> BackendRow:
    if reason is not None:
        return BackendRow("onnxruntime", "openvino", False, (), auto, reason)
    bf16 = device.computes_bf16()
    note = "computes in fp32 and bf16" if bf16 else "computes in fp32; this CPU has no bf16"
    return BackendRow("onnxruntime", "openvino", True, ("fp32", "bf16") if bf16 else ("fp32",), auto, note)


def _plans(flavour: Flavour) -> BackendRow:
    found = detect_tensorrt(flavour)
    reason = why_not(flavour, found)
    if reason is not None:
        return BackendRow(flavour, None, False, (), False, reason)
    assert isinstance(found.gpu, Gpu)
    note = f"{found.gpu.name}, compute capability {found.gpu.compute_capability}"
    return BackendRow(flavour, None, True, get_args(Precision), False, note)
