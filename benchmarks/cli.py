"""`dovit-bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dovit.benchmarks.chain import bench
from dovit.benchmarks.report import Settings
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import (
    KEEP,
    Backend,
    BackendChoice,
    Engine,
    Json,
    PrecisionChoice,
    Threads,
)
from dovit.runtime.cli.output import new_table, output_console, print_table, stage_progress
from dovit.runtime.cli.values import parse_shares
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image
from dovit.runtime.machine import find_gpu
from dovit.runtime.resize import resize_image

EPILOG = """\b
Examples:
    dovit-bench --engine engines/
    dovit-bench --engine engines/ --keep 0.5,0.35,0.25 --json
    dovit-bench --engine engines/ --image street.png --threads 1 --runs 200 \\
        --warmup 10
    dovit-bench --engine engines/ --backend tensorrt-rtx --precision fp16
    dovit-bench --engine engines/ --keep 0.5,0.35,0.25 --peers \\
        --ckpt model.pth
    dovit-bench --engine engines/ --keep 0.5,0.35,0.25 --sizes \\
        --ckpt model.pth
"""


def command(
    engine: Engine,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image to run on, resized to the bundle's size. Default: noise.")
    ] = None,
    keep: Annotated[str | None, typer.Option(metavar="SHARES", help=f"One row more: {KEEP}.")] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            "--rounds",
            min=1,
            metavar="N",
            help="How often each row is measured, in turns. Default: 11, on a GPU 100.",
        ),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Runs before that, not counted. Default: 2.")
    ] = None,
    threads: Threads = None,
    backend: Backend = BackendChoice.auto,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(metavar="TYPE", help="On a GPU: plans in fp32, fp16 or bf16. Default: fp16."),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Instead: every runtime that is installed, each in a process of its own: the dense model under ONNX Runtime, "
            "OpenVINO and torch in fp32, bf16 and int8, and the chain with each provider.",
        ),
    ] = False,
    sizes: Annotated[
        bool,
        typer.Option("--sizes", help="Instead: the checkpoint at 256 to 8192 tokens, dense and chain. Needs --ckpt."),
    ] = False,
    ckpt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --peers: the bundle's checkpoint, for torch's rows. With --sizes: the model."
        ),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --peers: the bundle in int8 (dovit-export --precision int8)."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="With --peers or --sizes: rows with one of these in their names, as 'OpenVINO bf16,torch'.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time the chain of a bundle against the dense model as one graph, in turns, one image at a time.

    On a CPU both run in ONNX Runtime; --peers has OpenVINO and torch as well.
    p50, p90 and p99 are percentiles of the latency; p99 says little below 100 runs. Decoding and resizing images are
    not part of it.
    """
    if backend in (BackendChoice.tensorrt, BackendChoice.tensorrt_rtx):
        for_cpus = {
            "--keep": keep,
            "--threads": threads,
            "--warmup": warmup,
            "--peers": peers or None,
            "--sizes": sizes or None,
            "--ckpt": ckpt,
            "--int8": int8,
            "--only": only,
        }
        if given := [flag for flag, value in for_cpus.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(given)}: for the CPU alone; --backend {backend} measures the dense model and the chain at "
                "0.5/0.35/0.25, 0.2/0.15/0.1 and the bundle's ξ: leave that out"
            )
        _on_gpu(engine, backend, image, precision, runs, as_json)
        return
    if precision is not None:
        raise UsageError("--precision is that of plans: give --backend tensorrt-rtx or tensorrt as well")
    shares = parse_shares(keep, "--keep")
    if peers and sizes:
        raise UsageError("--peers and --sizes are two tables: give one of them")
    if (ckpt is not None or only is not None) and not (peers or sizes):
        raise UsageError("--ckpt and --only are for --peers and --sizes")
    if int8 is not None and not peers:
        raise UsageError("--int8 is for --peers; to time a bundle in int8 alone, give it with --engine")
    settings = Settings(
        runs=runs or (5 if sizes else 11),
        warmup=(1 if sizes else 2) if warmup is None else warmup,
        threads=threads or len(os.sched_getaffinity(0)),
        keep=shares,
        only=tuple(name.strip() for name in (only or "").split(",") if name.strip()),
    )
    if sizes:
        if image is not None:
            raise UsageError("--sizes measures noise of several sizes: leave out --image")
        _by_size(engine, ckpt, settings, as_json=as_json)
        return
    pixels = None
    if image is not None:
        from dovit.runtime.bundle.open import read_manifest

        pixels = resize_image(read_image(image), read_manifest(engine).image_size)
    if peers:
        _beside_peers(engine, ckpt, int8, pixels, settings, as_json=as_json)
        return
    with stage_progress() as progress:
        progress("measuring")
        report = bench(engine, pixels, settings)
    if as_json:
        print(json.dumps(report))
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    console, rows = output_console(), report["rows"]
    what = f"{report['architecture']}, {report['image_size'][0]}×{report['image_size'][1]}, {report['backend']}"
    table = new_table("latency, ms", "p50", "p90", "p99", "fastest", "images/s", "speed-up")
    for row in rows:
        times = (row["latency_ms"], row["p90_ms"], row["p99_ms"], row["fastest_ms"])
        table.add_row(
            row["name"], *(f"{ms:.1f}" for ms in times), f"{row['images_per_s']:.2f}", f"{row['speedup']:.2f}"
        )
    title = f"{what}: {report['runs']} runs after {report['warmup']} for warm-up, threads: {report['threads']}"
    print_table(console, title, table)
    table = new_table(
        "work",
        "tokens kept",
        "GMACs\npaper",
        "GMACs\ntrue",
        "MAC\nratio",
        "speed-up /\nMAC ratio",
        left=(0, 1),
        text=(0,),
    )
    for row in rows:
        kept = "/".join(map(str, row["kept"])) or str(report["tokens"])
        table.add_row(
            row["name"],
            kept,
            f"{row['gmacs_paper']:.2f}",
            f"{row['gmacs_true']:.2f}",
            f"{row['mac_ratio']:.2f}",
            f"{row['efficiency']:.2f}",
        )
    note = "speed-up: median of the ratios of the dense model's time to the row's; MAC ratio: the same of the true MACs"
    print_table(console, "Multiply-accumulates", table, note)


def _beside_peers(
    engine: Path,
    ckpt: Path | None,
    int8: Path | None,
    pixels: np.ndarray | None,
    settings: Settings,
    *,
    as_json: bool,
) -> None:
    try:
        from dovit.benchmarks.peers.compare import compare_peers
    except ImportError as error:
        raise DovitError(f"the dense graph needs the package {error.name}: pip install 'dovit[export]'") from None
    with stage_progress() as progress:
        report = compare_peers(engine, pixels, settings, checkpoint=ckpt, int8=int8, progress=progress)
    if as_json:
        print(json.dumps(report))
        return
    from dovit.benchmarks.peers.tables import print_peers

    print_peers(report)


def _by_size(engine: Path, ckpt: Path | None, settings: Settings, *, as_json: bool) -> None:
    from dovit.runtime.bundle.open import read_manifest

    if ckpt is None:
        raise UsageError("--sizes exports the model at several image sizes: give its checkpoint with --ckpt")
    patch = read_manifest(engine).patch
    try:
        from dovit.benchmarks.peers.sizes import compare_sizes
    except ImportError as error:
        raise DovitError(f"exporting needs the package {error.name}: pip install 'dovit[export]'") from None
    with stage_progress() as progress:
        reports = compare_sizes(ckpt, patch, settings, progress=progress)
    if as_json:
        print(json.dumps(reports))
        return
    from dovit.benchmarks.peers.tables import print_sizes

    print_sizes(reports)


def _on_gpu(
    engine: Path,
    backend: BackendChoice,
    image: Path | None,
    precision: PrecisionChoice | None,
    runs: int | None,
    as_json: bool,
) -> None:
    """The comparison of `python -m dovit.benchmarks.gpu_chain`, over the bundle's plans."""
    gpu = find_gpu()
    if isinstance(gpu, str):
        raise DovitError(f"--backend {backend} needs an NVIDIA GPU: {gpu}; --backend onnxruntime runs on a CPU")
    try:
        from dovit.benchmarks import gpu_chain
    except ImportError as error:
        raise DovitError(f"timing on a GPU needs the package {error.name}: pip install 'dovit[export]'") from None
    gpu_chain.command(
        backend=gpu_chain.Backend(backend.value),
        engine=engine,
        image=image,
        precision=precision or PrecisionChoice.fp16,
        rounds=runs or 100,
        as_json=as_json,
    )


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-bench", epilog=EPILOG)
