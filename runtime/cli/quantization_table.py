"""A table about a bundle whose products are quantized."""

from __future__ import annotations

from rich.console import Console

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.quantization import Quantization
from dovit.runtime.cli.output import escaped, new_table, print_table

SHOWN = 12  # products that were left out, the costliest


def print_quantization(console: Console, manifest: Manifest, quantization: Quantization) -> None:
    """How many products of each step are quantized, what that costs, and which were left out."""
    total = {name: count for name, count in quantization.products.items()}
    table = new_table("step", f"products in\n{manifest.precision}", "error")
    for step in manifest.steps:
        error = quantization.errors.get(step.name)
        table.add_row(
            escaped(step.name), str(total.get(step.name, 0)), "not reached" if error is None else f"{error:.2%}"
        )
    table.add_section()
    table.add_row("labels equal", "", f"{quantization.label_agreement:.2%}")
    table.add_row("tokens with the same fate", "", f"{quantization.same_fate:.2%}")
    if quantization.miou:
        table.add_row("mIoU, float32", "", f"{quantization.miou[0]:.2f}")
        table.add_row(f"mIoU, {manifest.precision}", "", f"{quantization.miou[1]:.2f}")
    if quantization.left:
        table.add_section()
        for one in quantization.left[:SHOWN]:
            table.add_row(f"left out: {escaped(one.product)}", "", f"{one.cost:.2%}")
        if len(quantization.left) > SHOWN:
            table.add_row(f"and {len(quantization.left) - SHOWN} more", "", "")
    others = "other images" if quantization.held_out else "the same images"
    note = (
        f"calibrated on {quantization.calibrated} images, measured on {quantization.measured} ({others}); error: RMS "
        "difference of a step's outputs over their RMS value"
    )
    print_table(console, f"{manifest.precision} compared with float32", table, note)
