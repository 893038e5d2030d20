"""`python -m dovit.benchmarks.gpu_chain`: the chain's modes on a GPU against the dense model, in one run.

Kept counts are exact: without a graph they are given, and the graph gets there by ξ that are looked for on the image, such
that the schedule fills up to the very capacity (`gpu_rows.filling_thresholds`). The kept set is the same in all of them.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from dovit.benchmarks.gpu_comparison import RATIOS, Chains, Others, compare
from dovit.benchmarks.gpu_models import MODELS, dense_of, random_model
from dovit.benchmarks.gpu_rows import add_share_of_matrix_rate, counts_for
from dovit.benchmarks.matrix_rate import matrix_tflop_per_s
from dovit.benchmarks.torch_candidates import torch_candidates
from dovit.benchmarks.torch_chain import torch_chain
from dovit.export.capacities import default_capacities
from dovit.export.checkpoints import load_model
from dovit.export.model import DoViT
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import Flavour, Precision
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import PrecisionChoice
from dovit.runtime.cli.output import output_console
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.gpu.open import open_chain
from dovit.runtime.images import read_image
from dovit.runtime.machine import find_gpu
from dovit.runtime.plans import choose_plans
from dovit.runtime.resize import resize_image

EPILOG = """Examples:

python -m dovit.benchmarks.gpu_chain --model vit-l --size 1024x2048 --out vit-l.json

python -m dovit.benchmarks.gpu_chain --ckpt assets/streets-tiny.safetensors --image assets/street.png

python -m dovit.benchmarks.gpu_chain --backend tensorrt-rtx --engine engines/ --ckpt model.pth
"""


class Backend(StrEnum):
    """What runs the blocks."""

    torch = "torch"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def command(
    backend: Annotated[Backend, typer.Option(help="What runs the blocks.")] = Backend.torch,
    model: Annotated[str | None, typer.Option(help=f"With random weights: {', '.join(MODELS)}.")] = None,
    size: Annotated[str, typer.Option(help="Of the random model's images, height and width.")] = "512x512",
    ckpt: Annotated[Path | None, typer.Option(help="A checkpoint instead; with --engine, beside it.")] = None,
    engine: Annotated[Path | None, typer.Option(help="A bundle with plans and ONNX files, for TensorRT.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image; default noise.")] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="Of the blocks.")] = PrecisionChoice.fp16,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; in each, every candidate runs once.")] = 100,
    images: Annotated[int, typer.Option(min=1, help="Images that a throughput is measured on.")] = 20,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Also torch.compile.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the JSON there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON.")] = False,
) -> None:
    """Time the chain on a GPU against the dense model, interleaved in one run."""
    check_arguments(backend, model, ckpt, engine)
    pixels = None if image is None else read_image(image)
    chosen: Precision = precision.value
    height_width = parse_size(size)
    gpu = find_gpu()
    if isinstance(gpu, str):
        raise DovitError(gpu)
    skipped: dict[str, str] = {}
    if backend is Backend.torch:
        given = load_model(ckpt).model if ckpt else random_model(model or "vit-b", height_width)
        batch = _image(pixels, given.config.image_size)
        others = torch_candidates(given, chosen, "cuda:0", batch, skipped, compiled=compiled)
        own = ckpt is not None
        report = compare(over_torch(given, chosen, own=own), batch, rounds, images, own=own, others=others)
    else:
        assert engine is not None
        flavour: Flavour = "tensorrt" if backend is Backend.tensorrt else "tensorrt-rtx"
        chains = over_plans(engine, flavour, chosen)
        batch = _image(pixels, chains.graph.manifest.image_size)
        beside = beside_plans(ckpt, chains, chosen, batch, skipped, compiled=compiled) if ckpt else None
        report = compare(chains, batch, rounds, images, own=True, others=beside)
    rate = matrix_tflop_per_s(chosen)
    add_share_of_matrix_rate(report["rows"], rate)
    report = {
        "gpu": gpu.name,
        "matrix_tflop_per_s": rate,
        "compute_capability": gpu.compute_capability,
        "driver_cuda": ".".join(map(str, gpu.driver_cuda)),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "backend": backend.value,
        "weights": _weights(model, ckpt, engine),
        "command": " ".join([_program(), *sys.argv[1:]]),
        **report,
        "skipped": skipped,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(report))
    else:
        print_report(output_console(), report)


def check_arguments(backend: Backend, model: str | None, ckpt: Path | None, engine: Path | None) -> None:
    """Raises UsageError for what does not go together."""
    if backend is not Backend.torch:
        if engine is None:
            raise UsageError(f"--backend {backend} runs the plans of a bundle: give its folder by --engine")
        if model is not None:
            raise UsageError(f"--backend {backend} runs the plans of --engine: --model is for --backend torch")
        return
    if engine is not None:
        raise UsageError("--backend torch runs torch's blocks: give --model or --ckpt instead of --engine")
    if model is not None and ckpt is not None:
        raise UsageError("--model has random weights and --ckpt its own: give one of them")
    if model is not None and model not in MODELS:
        raise UsageError(f"unknown model {model!r}: choose one of {', '.join(MODELS)}")


def parse_size(text: str) -> tuple[int, int]:
    """(height, width), multiples of the patch size. Raises UsageError."""
    try:
        height, width = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise UsageError(f"--size {text}: give height and width, as 1024x2048") from None
    if min(height, width) < 16 or height % 16 or width % 16:
        raise UsageError(f"--size {text}: height and width must be multiples of the patch size 16")
    return height, width


def over_torch(model: DoViT, precision: Precision, *, own: bool) -> Chains:
    """The chains of `model`, with a capacity for every count that the ratios ask for; with those that a bundle has as well
    where it is to run at its `own` ξ. Each costs memory: torch's allocator keeps what a body needs for that body."""
    tokens = model.config.tokens
    wanted = {c for ratio in RATIOS for c in counts_for(ratio, tokens, range(tokens + 1))}
    capacities = tuple(sorted({0, tokens, *wanted, *(default_capacities(tokens) if own else ())}))
    return Chains(
        torch_chain(model, capacities, precision, graph=True),
        torch_chain(model, capacities, precision, graph=False),
        torch_chain(dense_of(model), (0, tokens), precision, graph=True),
    )


def over_plans(engine: Path, flavour: Flavour, precision: Precision) -> Chains:
    """The chains of a bundle's plans, and of the dense model, which is built from its ONNX files. Raises DovitError where that
    cannot be."""
    try:
        from dovit.benchmarks.gpu_dense import dense_chain
    except ImportError as error:
        raise DovitError(
            f"the dense model's plan needs the package {error.name}: pip install 'dovit[{flavour}]'"
        ) from None
    bundle = open_bundle(engine)
    plans = choose_plans(bundle.root, bundle.manifest, flavour, precision)
    dense = dense_chain(bundle, plans)
    return Chains(open_chain(bundle, plans, graph=True), open_chain(bundle, plans, graph=False), dense)


def beside_plans(
    ckpt: Path,
    chains: Chains,
    precision: Precision,
    image: np.ndarray,
    skipped: dict[str, str],
    *,
    compiled: bool,
    device: str = "cuda:0",
) -> Others:
    """The checkpoint that a bundle was made of, in torch. Raises UsageError where it is another model."""
    model, manifest = load_model(ckpt).model, chains.graph.manifest
    config = model.config
    if (config.image_size, config.classes, len(config.decisions)) != (
        manifest.image_size,
        manifest.classes,
        len(manifest.decisions),
    ):
        raise UsageError(f"{ckpt}: not the model of --engine: another image size, or other classes or decisions")
    return torch_candidates(model, precision, device, image, skipped, compiled=compiled)


def print_report(console: Console, report: dict[str, Any]) -> None:
    """A row a candidate."""
    height, width = report["image_size"]
    host = "the host writes for {write:.0f} µs and launches for {launch:.0f} µs".format(**report["host_us"])
    table = Table(
        title=f"{report['gpu']}, {report['architecture']}, {height}×{width}, {report['backend']} {report['precision']}",
        caption=f"against: {report['baseline']}; {host}; a product of large matrices {report['matrix_tflop_per_s']:.0f} TFLOP/s",
    )
    for title in (
        "",
        "setting",
        "kept",
        "p50, ms",
        "p95",
        "p99",
        "images/s",
        "GMACs",
        "MAC ratio",
        "speed-up",
        "of the ratio",
        "of a product",
    ):
        table.add_column(title, justify="left" if title in ("", "setting", "kept") else "right")
    for row in report["rows"]:
        table.add_row(
            row["name"],
            row["setting"],
            "/".join(map(str, row["kept"])) or f"{report['tokens']}",
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['images_per_s']:.1f}",
            f"{row['gmacs']:.2f}",
            f"{row['mac_ratio']:.2f}",
            f"{row['speedup']:.2f}",
            f"{row['efficiency']:.2f}",
            f"{row['of_matrix_rate']:.0%}",
        )
    console.print(table)
    for name, reason in report["skipped"].items():
        console.print(f"{name} is missing: {reason}", markup=False)


def _image(pixels: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    if pixels is None:
        return np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    return resize_image(pixels, size)[None]


def _program() -> str:
    """The command that was typed, which may be dovit-bench."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("dovit") else "python -m dovit.benchmarks.gpu_chain"


def _weights(model: str | None, ckpt: Path | None, engine: Path | None) -> str:
    given = ckpt or engine
    return given.name if given else f"{model or 'vit-b'}, random"


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.gpu_chain", epilog=EPILOG)


if __name__ == "__main__":
    main()
