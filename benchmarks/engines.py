"""Builds all plans of SETR ViT-L from random weights, twice, and says what that took: `python -m dovit.benchmarks.engines`.

Needs no GPU: TensorRT-RTX builds without one. The first export makes everything, the second finds that nothing changed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from dovit.benchmarks.report import machine_and_versions
from dovit.export.checkpoints import save_model
from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import SetrUpDecoder, paper_decision_layers
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.output import output_console
from dovit.runtime.cli.values import parse_size

CLASSES = {(512, 512): 150, (1024, 2048): 19}  # as ADE20K and Cityscapes have them


def vit_large(image_size: tuple[int, int]) -> ModelConfig:
    """SETR-PUP on ViT-L/16 with three decisions, as the paper places them."""
    classes = CLASSES.get(image_size, 19)
    return ModelConfig(
        image_size=image_size,
        classes=classes,
        backbone=BackboneConfig.of_size("large"),
        decoder=SetrUpDecoder(kind="setr-pup", num_convs=4, kernel=3, channels=256, up_scale=2),
        decisions=tuple(HeadConfig(layer=layer) for layer in paper_decision_layers(24)),
        thresholds=(0.98,) * 3,
    )


def measure(image_size: tuple[int, int], precision: str, folder: Path, *, verify: bool) -> dict[str, Any]:
    """Export a model of that size twice into `folder`, with a cache of its own."""
    checkpoint = folder / "model.safetensors"
    save_model(DoViT(vit_large(image_size)).eval(), checkpoint)
    command = [
        sys.executable,
        "-c",
        "from dovit.export.cli import main; main()",
        "--ckpt",
        str(checkpoint),
        "--out",
        str(folder / "engines"),
        "--backend",
        "tensorrt-rtx",
        "--precision",
        precision,
        "--cache",
        str(folder / "cache"),
        "--json",
        "--verify" if verify else "--no-verify",
    ]
    rows = []
    for _ in range(2):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append((time.perf_counter() - start, json.loads(done.stdout)))
    (first_seconds, first), (second_seconds, second) = rows
    plans = first["manifest"]["plans"][0]
    files = first["manifest"]["files"]
    return {
        "image_size": image_size,
        "classes": first["manifest"]["classes"],
        "capacities": len(first["manifest"]["capacities"]),
        "precision": precision,
        "checkpoint_bytes": checkpoint.stat().st_size,
        "export_seconds": round(first_seconds, 2),
        "plan_seconds": first["plans"]["seconds"],
        "built": first["plans"]["built"],
        "builder_peak_bytes": first["plans"]["peak_bytes"],
        # of this process's children, those that have ended: the export itself, ONNX included
        "export_peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "again_seconds": round(second_seconds, 2),
        "again_built": second["plans"]["built"],
        "accuracy": plans["accuracy"],
        "plans": [
            {
                "name": step["name"],
                "bytes": files[step["plan"]["file"]]["size"],
                **{
                    key: step["plan"][key]
                    for key in ("build_seconds", "network_layers", "attentions", "fused_attentions", "activation_bytes")
                },
            }
            for step in plans["steps"]
            if step["plan"]
        ],
    }


def command(
    sizes: Annotated[str, typer.Option(help="HEIGHTxWIDTH, several separated by commas.")] = "512x512,1024x2048",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp16",
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare with torch and with float32; takes minutes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON report into this file.")] = None,
) -> None:
    """Time the building of SETR ViT-L's plans."""
    rows: list[dict[str, Any]] = []
    report = {
        "date": date.today().isoformat(),
        **machine_and_versions(("tensorrt-rtx-cu13", "onnx", "polygraphy", "torch")),
        "rows": rows,
    }
    table = Table(title="SETR-PUP ViT-L, TensorRT-RTX, no GPU", title_justify="left")
    for title in ("size", "plans", "plans, s", "MB", "export, s", "again, s", "peak, GB", "fused"):
        table.add_column(title, justify="right")
    for text in sizes.split(","):
        size = parse_size(text, "--sizes")
        assert size
        with TemporaryDirectory() as folder:
            row = measure(size, precision, Path(folder), verify=verify)
        rows.append(row)
        fused, all_of = (sum(plan[key] for plan in row["plans"]) for key in ("fused_attentions", "attentions"))
        table.add_row(
            text,
            str(row["built"]),
            f"{row['plan_seconds']:.1f}",
            f"{sum(p['bytes'] for p in row['plans']) / 1e6:.0f}",
            f"{row['export_seconds']:.1f}",
            f"{row['again_seconds']:.1f}",
            f"{max(row['builder_peak_bytes'], row['export_peak_bytes']) / 1e9:.2f}",
            f"{fused} of {all_of}",
        )
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
    output_console().print(table)


if __name__ == "__main__":
    run_command(command, "dovit-bench-engines")
