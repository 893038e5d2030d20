"""`dovit-bench`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dovit.benchmarks.chain import bench
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.run import PrecisionChoice
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image
from dovit.runtime.machine import find_gpu
from dovit.runtime.resize import resize_image

EPILOG = """Examples:

dovit-bench --engine engines/

dovit-bench --engine engines/ --keep 0.5,0.35,0.25 --json

dovit-bench --engine engines/ --backend tensorrt-rtx --precision fp16
"""


class Backend(StrEnum):
    """What runs the bundle."""

    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def command(
    engine: Annotated[Path, typer.Option(help="The bundle's folder.")],
    image: Annotated[Path | None, typer.Option(help="An image to run on, resized to the bundle's size; default noise.")] = None,
    keep: Annotated[str | None, typer.Option(help="Also keeping these shares of the tokens, as 0.5,0.35,0.25.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds; in each, every contestant runs once. Default 11, on a GPU 100.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all.")] = None,
    backend: Annotated[Backend, typer.Option(help="The CPU, or the bundle's plans on a GPU.")] = Backend.onnxruntime,
    precision: Annotated[PrecisionChoice | None, typer.Option(help="Of the plans; default fp16.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Time the chain of a bundle against the dense model as one graph, interleaved in one run."""
    if backend is not Backend.onnxruntime:
        if keep is not None or threads is not None:
            raise UsageError(
                f"--keep and --threads are for the CPU: --backend {backend} measures 0.5/0.35/0.25, 0.2/0.15/0.1 and the "
                "model's own ξ"
            )
        _on_gpu(engine, backend, image, precision, rounds, as_json)
        return
    if precision is not None:
        raise UsageError("--precision is that of plans: give --backend tensorrt-rtx or tensorrt as well")
    try:
        shares = [float(part) for part in keep.replace("/", ",").split(",")] if keep else None
    except ValueError:
        raise UsageError(f"--keep {keep}: give numbers separated by commas, as 0.5,0.35,0.25") from None
    pixels = None
    if image is not None:
        from dovit.runtime.bundle.open import read_manifest

        pixels = resize_image(read_image(image), read_manifest(engine).image_size)
    report = bench(engine, pixels, shares, rounds or 11, threads)
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


def _on_gpu(
    engine: Path,
    backend: Backend,
    image: Path | None,
    precision: PrecisionChoice | None,
    rounds: int | None,
    as_json: bool,
) -> None:
    """The contest of `python -m dovit.benchmarks.gpu_chain`, over the bundle's plans."""
    gpu = find_gpu()
    if isinstance(gpu, str):
        raise DovitError(f"--backend {backend} needs an NVIDIA GPU: {gpu}; --backend onnxruntime runs on a CPU")
    try:
        from dovit.benchmarks import gpu_chain
    except ImportError as error:
        raise DovitError(f"timing on a GPU needs the package {error.name}: pip install 'dovit[export]'") from None
    gpu_chain.command(
        backend=gpu_chain.Backend(backend.value), engine=engine, image=image, precision=precision or PrecisionChoice.fp16,
        rounds=rounds or 100, as_json=as_json,
    )  # fmt: skip


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-bench", epilog=EPILOG)
