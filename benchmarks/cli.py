"""`dovit-bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dovit.benchmarks.chain import bench
from dovit.runtime.cli.app import run_command
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image

EPILOG = """Examples:

dovit-bench --engine engines/

dovit-bench --engine engines/ --keep 0.5,0.35,0.25 --json
"""


def command(
    engine: Annotated[Path, typer.Option(help="The bundle's folder.")],
    image: Annotated[Path | None, typer.Option(help="An image to run on, resized to the bundle's size; default noise.")] = None,
    keep: Annotated[str | None, typer.Option(help="Also keeping these shares of the tokens, as 0.5,0.35,0.25.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every contestant runs once.")] = 11,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Time the chain of a bundle against the dense model as one graph, interleaved in one run."""
    from dovit.runtime.errors import UsageError

    try:
        shares = [float(part) for part in keep.replace("/", ",").split(",")] if keep else None
    except ValueError:
        raise UsageError(f"--keep {keep}: give numbers separated by commas, as 0.5,0.35,0.25") from None
    pixels = None
    if image is not None:
        from dovit.runtime.bundle.open import read_manifest

        pixels = resize_image(read_image(image), read_manifest(engine).image_size)
    report = bench(engine, pixels, shares, rounds, threads)
    if as_json:
        print(json.dumps(report))
        return
    table = Table(
        title=f"{report['architecture']}, {report['image_size'][0]}×{report['image_size'][1]}, {report['backend']}"
    )
    for title in ("", "kept", "ms, median", "GMACs, paper", "GMACs, true", "MAC ratio", "speed-up", "of the ratio"):
        table.add_column(title, justify="left" if title in ("", "kept") else "right")
    for row in report["rows"]:
        kept = "/".join(map(str, row["kept"])) or f"{report['tokens']}"
        table.add_row(
            row["name"], kept, f"{row['latency_ms']:.1f}", f"{row['gmacs_paper']:.2f}", f"{row['gmacs_true']:.2f}",
            f"{row['mac_ratio']:.2f}", f"{row['speedup']:.2f}", f"{row['efficiency']:.2f}",
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-bench", epilog=EPILOG)
