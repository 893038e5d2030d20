"""The tables of `dovit-run --list-backends`."""

from __future__ import annotations

from dovit.runtime.cli.output import escaped, new_table, output_console, print_table
from dovit.runtime.machine import find_gpu
from dovit.runtime.openvino import device
from dovit.runtime.openvino.speed import LARGE, known_speeds
from dovit.runtime.providers import VARIABLE, asked_provider


def print_backends() -> None:
    """What can run bundles here, what `auto` takes and why, and the bundles for which that was measured."""
    asked, _ = asked_provider("auto")
    reason, gpu, console = device.why_not(), find_gpu(), output_console()
    openvino = reason or f"computes in {'fp32 and bf16' if device.computes_bf16() else 'fp32; this CPU has no bf16'}"
    plans = gpu if isinstance(gpu, str) else f"{gpu.name}, compute capability {gpu.compute_capability}"
    table = new_table("backend", "provider", "usable", "", left=(0, 1, 2, 3))
    table.add_row("onnxruntime", "cpu", "yes", "computes in fp32")
    table.add_row("onnxruntime", "openvino", "no" if reason else "yes", openvino)
    table.add_row("tensorrt, tensorrt-rtx", "", "no" if isinstance(gpu, str) else "yes", plans)
    takes = "auto takes onnxruntime with the provider"
    if asked != "auto":
        print_table(console, "", table, f"{takes} {asked}: {VARIABLE} is set")
        return
    if reason:
        print_table(console, "", table, f"{takes} cpu: {reason}")
        return
    print_table(
        console,
        "",
        table,
        f"{takes} openvino for bf16 and for models from {LARGE / 1e9:.0f} GMACs an image on, and for smaller ones the provider "
        "that was faster when the bundle was first loaded",
    )
    speeds = known_speeds()
    if not speeds:
        return
    measured = new_table(
        "measured on this CPU", "threads", "cpu, CPU ms", "openvino, CPU ms", "openvino / cpu", "auto takes"
    )
    for speed in speeds:
        measured.add_row(
            escaped(speed.bundle),
            str(speed.threads),
            f"{speed.onnxruntime_cpu_ms:.1f}",
            f"{speed.openvino_cpu_ms:.1f}",
            f"{speed.openvino_over_onnxruntime:.2f}",
            speed.faster,
        )
    print_table(console, "", measured)
