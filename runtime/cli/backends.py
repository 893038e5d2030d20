"""The table of `dovit-run --list-backends`."""

from __future__ import annotations

from dovit.runtime.cli.output import new_table, output_console, print_table
from dovit.runtime.machine import find_gpu
from dovit.runtime.openvino import device
from dovit.runtime.providers import choose_provider


def print_backends() -> None:
    """What can run bundles here, and what `auto` takes."""
    chosen, why = choose_provider(None, "auto")
    reason, gpu = device.why_not(), find_gpu()
    openvino = reason or f"computes in {'fp32 and bf16' if device.computes_bf16() else 'fp32; this CPU has no bf16'}"
    plans = gpu if isinstance(gpu, str) else f"{gpu.name}, compute capability {gpu.compute_capability}"
    table = new_table("backend", "provider", "usable", "", left=(0, 1, 2, 3))
    table.add_row("onnxruntime", "cpu", "yes", "computes in fp32")
    table.add_row("onnxruntime", "openvino", "no" if reason else "yes", openvino)
    table.add_row("tensorrt, tensorrt-rtx", "", "no" if isinstance(gpu, str) else "yes", plans)
    print_table(output_console(), "", table, f"auto takes onnxruntime with the provider {chosen}: {why}")
