"""`dovit-export`."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.values import parse_numbers, parse_size, parse_thresholds
from dovit.runtime.errors import UsageError

EPILOG = """Examples:

dovit-export --ckpt model.pth --out engines/

dovit-export --ckpt setr_pup.pth --out engines/ --decision-layers 10,15,20 --threshold 0.98 --palette cityscapes

dovit-export --ckpt plain_segmenter.pth --out dense/ --dense --image-size 512x1024
"""


class Arch(StrEnum):
    """Decoders."""

    SETR_NAIVE = "setr-naive"
    SETR_PUP = "setr-pup"
    SETR_MLA = "setr-mla"
    SEGMENTER_MASK = "segmenter-mask"
    SEGMENTER_LINEAR = "segmenter-linear"


class Precision(StrEnum):
    """Of weights and activations."""

    FP32 = "fp32"


def command(
    ckpt: Annotated[Path, typer.Option(help="Checkpoint: ours, mmsegmentation's or segmenter's (.pth, .safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; other files in it stay.")],
    arch: Annotated[Arch | None, typer.Option(help="The decoder, where the checkpoint does not tell.")] = None,
    image_size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, or one number; default the checkpoint's.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, as a check.")] = None,
    decision_layers: Annotated[str | None, typer.Option(help="Layers with a decision, from 1, as 3,6,9.")] = None,
    palette: Annotated[str | None, typer.Option(help="cityscapes, ade20k, or a file with names and colours.")] = None,
    threshold: Annotated[str | None, typer.Option(help="ξ: one value, or one a decision, as 0.98,0.97,0.96.")] = None,
    capacities: Annotated[str | None, typer.Option(help="Kept counts of the bucketed schedule, as 256,512.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the subgraphs.")] = Precision.FP32,
    dense: Annotated[bool, typer.Option("--dense", help="Export without decisions, as the plain segmenter.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the bundle with the torch model.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:  # fmt: skip
    """Turn a checkpoint into a bundle of per-block ONNX subgraphs."""
    options = {
        "arch": arch.value if arch else None,
        "image_size": parse_size(image_size, "--image-size"),
        "classes": classes,
        "decision_layers": parse_numbers(decision_layers, int, "--decision-layers"),
        "thresholds": parse_thresholds(threshold),
        "dense": dense,
    }
    wanted = parse_numbers(capacities, int, "--capacities")
    try:
        from dovit.export.run import export
    except ModuleNotFoundError as error:
        raise UsageError(f"dovit-export needs the package {error.name}: pip install 'dovit[export]'") from None
    from dovit.export.table import print_passes, print_steps

    start = time.perf_counter()
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the checkpoint", total=None)
        done = export(
            ckpt, out, options, wanted, palette, check=verify, progress=lambda text: bar.update(task, description=text)
        )
    seconds = time.perf_counter() - start
    if as_json:
        report = {
            "engine": str(out), "format": done.format, "notes": done.notes, "seconds": round(seconds, 2),
            "manifest": done.manifest.model_dump(mode="json"),
            "verification": [{**vars(p), "ok": p.ok} for p in done.passes],
        }  # fmt: skip
        print(json.dumps(report, ensure_ascii=False))
        return
    output = Console()
    print_steps(output, done.manifest)
    if done.passes:
        print_passes(output, done.passes)
    for note in done.notes:
        output.print(f"note: {note}", highlight=False)
    thresholds = ", ".join(f"{t:g}" for t in done.manifest.thresholds) or "none (dense)"
    output.print(
        f"{out}: {done.format} checkpoint exported in {seconds:.1f} s; thresholds {thresholds}", highlight=False
    )


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-export", epilog=EPILOG)
