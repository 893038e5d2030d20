"""Which products stay in floating point so that a quantized bundle is within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dovit.export.quantization import measure
from dovit.export.quantization.measure import Figures, Reference, quantized_engine
from dovit.export.quantization.products import QuantizedProduct
from dovit.runtime.bundle.quantization import LeftOut
from dovit.runtime.errors import DovitError


def search(
    reference: Reference,
    quantized: Mapping[str, QuantizedProduct],
    step_of: Mapping[str, str],
    scratch: Path,
    progress: Callable[[str], None],
) -> tuple[dict[str, QuantizedProduct], tuple[LeftOut, ...], Figures]:
    """The products to quantize, those that are left out because they cost most, and what the result costs.

    `step_of`: the step of each product. Each product's cost is measured with it alone quantized; the fewest of the costliest are
    left out, found by bisection. Raises DovitError where no product can be quantized.
    """
    progress("measuring with every product quantized")
    figures = reference.compare(quantized, scratch)
    if figures.ok:
        return dict(quantized), (), figures
    costs: dict[str, float] = {}
    steps = {step.name: step for step in reference.bundle.manifest.steps}
    for number, (name, product) in enumerate(quantized.items(), start=1):
        progress(f"cost of each product: {number} of {len(quantized)}")
        step = steps[step_of[name]]
        engine = quantized_engine(reference.bundle, step, {name: product}, scratch)
        costs[name] = reference.step_error(step, engine) or 0.0
    ranked = sorted(costs, key=lambda name: costs[name], reverse=True)
    too_few, enough = 0, len(ranked)
    found: Figures | None = None
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        progress(f"measuring with {count} of {len(ranked)} products left out")
        figures = reference.compare({name: quantized[name] for name in ranked[count:]}, scratch)
        if figures.ok:
            enough, found = count, figures
        else:
            too_few = count
    if found is None:
        mious = ""
        if figures.miou:
            before, after = figures.miou
            mious = f", and mIoU goes from {before:.2f} to {after:.2f} (at most {measure.MAX_MIOU_LOSS} less)"
        raise DovitError(
            f"no product of this model can be quantized: with one alone {figures.label_agreement:.2%} of the labels are equal "
            f"(at least {measure.MIN_LABELS_EQUAL:.0%}){mious}; use --precision fp32 on a CPU, or fp16 or bf16 for plans"
        )
    left = tuple(LeftOut(product=name, cost=costs[name]) for name in ranked[:enough])
    return {name: quantized[name] for name in quantized if name in ranked[enough:]}, left, found
