"""`dovit-inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dovit.runtime.bundle.manifest import DecisionSpec, Manifest
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.diagram import chain_dot, chain_svg
from dovit.runtime.cli.options import Json
from dovit.runtime.cli.output import escaped, new_table, output_console, print_line, print_table
from dovit.runtime.cli.plan_tables import print_accuracy, print_plans
from dovit.runtime.cli.quantization_table import print_quantization
from dovit.runtime.errors import UsageError
from dovit.runtime.files import atomic_write

EPILOG = """\b
Examples:
    dovit-inspect engines/
    dovit-inspect engines/ --layers
    dovit-inspect engines/ --svg chain.svg
    dovit-inspect engines/ --json
"""


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The bundle, as dovit-export wrote it.", show_default=False)
    ] = None,
    engine: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The same, as the other commands have it.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List each plan's layers, as its builder did.")] = False,
    dot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the chain for Graphviz.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the chain as a picture.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a bundle, after checking every file's hash."""
    folder = bundle or engine
    if folder is None or (bundle and engine):
        raise UsageError("name one bundle: dovit-inspect FOLDER")
    manifest = open_bundle(folder).manifest
    chain = manifest.plans[-1].steps if manifest.plans else manifest.steps
    for path, draw in ((dot, chain_dot), (svg, chain_svg)):
        if path:
            with atomic_write(path) as part:
                part.write_text(draw(chain), encoding="utf-8")
    if as_json:
        print(json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False))
        return
    console = output_console()
    for title, value in _facts(manifest).items():
        console.print(f"[bold]{title:<14}[/bold] {escaped(value)}", highlight=False, soft_wrap=True)
    console.print()
    _print_costs(console, manifest)
    # lines of their own, and never wrapped: names cut short by a table would be of no use to anyone
    for step in manifest.steps:
        file = step.onnx or "(no ONNX file)"
        console.print(f"[bold]{escaped(step.name)}[/bold]  {escaped(file)}", highlight=False, soft_wrap=True)
        for arrow, tensors in (("→", step.inputs), ("←", step.outputs)):
            for spec in tensors:
                console.print(f"  {arrow} {_tensor(spec)}", highlight=False, soft_wrap=True)
    console.print()
    if manifest.quantization:
        print_quantization(console, manifest, manifest.quantization)
    for plans in manifest.plans:
        print_plans(console, manifest, plans)
        if plans.accuracy:
            print_accuracy(console, plans)
        if layers:
            _print_layers(console, plans)
    for name, entry in manifest.files.items():
        console.print(f"{entry.size / 1e6:10.3f} MB  {escaped(name)}", highlight=False, soft_wrap=True)
    size = sum(entry.size for entry in manifest.files.values())
    print_line(console, f"{len(manifest.files)} files, {size / 1e6:.1f} MB, all as exported (SHA-256)")


def _print_layers(console: Console, plans: PlanSet) -> None:
    for step in plans.steps:
        if step.plan:
            console.print(f"[bold]{escaped(step.name)}[/bold]", highlight=False)
            for layer in step.plan.layers:
                console.print(f"  {escaped(layer)}", highlight=False, soft_wrap=True)


def _print_costs(console: Console, manifest: Manifest) -> None:
    """Parameters and MACs of each step where no token stops."""
    table = new_table("step", "parameters\nM", "GMACs\npaper", "GMACs\ntrue")
    for step in manifest.steps:
        tokens = manifest.prefix + (0 if step is manifest.steps[-1] else manifest.tokens)
        macs = step.macs.paper(tokens), step.macs.true(tokens)
        table.add_row(escaped(step.name), f"{step.parameters / 1e6:.2f}", *(f"{count / 1e9:.2f}" for count in macs))
    print_table(console, "Steps, all tokens kept", table)


def _facts(manifest: Manifest) -> dict[str, str]:
    names = manifest.class_names
    height, width = manifest.image_size
    named = f" ({', '.join(names[:6])}{', …' if len(names) > 6 else ''})" if names else ""
    paired = zip(manifest.decisions, manifest.thresholds, strict=True)
    decisions = [
        f"after layer {decision.layer}: ξ = {threshold:g}{_lens(manifest, decision)}" for decision, threshold in paired
    ]
    return {
        "architecture": manifest.architecture,
        "image size": f"{height}×{width}, patch {manifest.patch}, {manifest.tokens} tokens",
        "classes": f"{manifest.classes}{named}",
        "decisions": ", ".join(decisions) or "none (dense)",
        "merging": _merging(manifest),
        "capacities": ", ".join(map(str, manifest.capacities)),
        "mode": manifest.mode,
        "slide stride": f"{manifest.slide_stride[0]}×{manifest.slide_stride[1]}",
        "ONNX files": _files(manifest) if all(step.onnx for step in manifest.steps) else "left out",
        "plans": ", ".join(plans.name for plans in manifest.plans) or "none",
        "made by": f"dovit {manifest.dovit_version}, schema {manifest.schema_version}",
    }


def _lens(manifest: Manifest, decision: DecisionSpec) -> str:
    if not manifest.has_lens(decision):
        return ""
    side = decision.lens_kernel
    return ", with a lens" + (f" that sees {side}×{side} patches" if side > 1 else "")


def _merging(manifest: Manifest) -> str:
    if not manifest.decisions:
        return "none (dense)"
    if manifest.merge_cells:
        return f"stopped tokens of each cell of {manifest.merge_cells}×{manifest.merge_cells} patches into one token"
    if not manifest.prefix:
        return "none (no class token)"
    return "stopped tokens into the class token" if manifest.merge else "off: the class token stays as it is"


def _files(manifest: Manifest) -> str:
    """The types in them."""
    quantized = manifest.quantization
    if quantized is None:
        return manifest.precision
    count = sum(quantized.products.values())
    return f"{count} products in {manifest.precision}, all else fp32; {len(quantized.left)} products were left out"


def _tensor(spec: TensorSpec) -> str:
    return escaped(f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]")


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-inspect", epilog=EPILOG)
