"""`dovit-inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli.app import run_command

EPILOG = """Examples:

dovit-inspect engines/

dovit-inspect engines/ --json
"""


def command(
    engine: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what is in a bundle, after checking every file's hash."""
    manifest = open_bundle(engine).manifest
    if as_json:
        print(json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False))
        return
    console = Console()
    for title, value in _facts(manifest).items():
        console.print(f"[bold]{title:<14}[/bold] {escape(value)}", highlight=False, soft_wrap=True)
    console.print(_costs(manifest))
    # lines of their own, and never wrapped: names cut short by a table would be of no use to anyone
    for step in manifest.steps:
        console.print(f"[bold]{escape(step.name)}[/bold]  {escape(step.onnx)}", highlight=False, soft_wrap=True)
        for arrow, tensors in (("→", step.inputs), ("←", step.outputs)):
            for spec in tensors:
                console.print(f"  {arrow} {_tensor(spec)}", highlight=False, soft_wrap=True)
    for name, entry in manifest.files.items():
        console.print(f"{entry.size / 1e6:10.3f} MB  {escape(name)}", highlight=False, soft_wrap=True)
    size = sum(entry.size for entry in manifest.files.values())
    console.print(f"{len(manifest.files)} files, {size / 1e6:.1f} MB, all as exported (SHA-256)", highlight=False)


def _costs(manifest: Manifest) -> Table:
    """Parameters and MACs of each step where no token stops."""
    table = Table(caption="all tokens kept", caption_justify="left")
    table.add_column("step")
    for title in ("parameters, M", "GMACs, paper", "GMACs, true"):
        table.add_column(title, justify="right")
    for step in manifest.steps:
        tokens = manifest.prefix + (0 if step is manifest.steps[-1] else manifest.tokens)
        macs = step.macs.paper(tokens), step.macs.true(tokens)
        table.add_row(escape(step.name), f"{step.parameters / 1e6:.2f}", *(f"{count / 1e9:.2f}" for count in macs))
    return table


def _facts(manifest: Manifest) -> dict[str, str]:
    names = manifest.class_names
    height, width = manifest.image_size
    named = f" ({', '.join(names[:6])}{', …' if len(names) > 6 else ''})" if names else ""
    paired = zip(manifest.decisions, manifest.thresholds, strict=True)
    decisions = [f"after layer {decision.layer}: ξ = {threshold:g}" for decision, threshold in paired]
    return {
        "architecture": manifest.architecture,
        "image size": f"{height}×{width}, patch {manifest.patch}, {manifest.tokens} tokens",
        "classes": f"{manifest.classes}{named}",
        "decisions": ", ".join(decisions) or "none (dense)",
        "capacities": ", ".join(map(str, manifest.capacities)),
        "slide stride": f"{manifest.slide_stride[0]}×{manifest.slide_stride[1]}",
        "precision": manifest.precision,
        "made by": f"dovit {manifest.dovit_version}, schema {manifest.schema_version}",
    }


def _tensor(spec: TensorSpec) -> str:
    return escape(f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]")


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-inspect", epilog=EPILOG)
