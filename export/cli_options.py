"""Options of the commands that read a checkpoint (`dovit-export`, `dovit-train`, `dovit-adapt`), and what they become.

Nothing here imports torch, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dovit.runtime.cli.options import threshold_option
from dovit.runtime.cli.values import parse_numbers, parse_size, parse_thresholds


class ArchChoice(StrEnum):
    """Decoders."""

    SETR_NAIVE = "setr-naive"
    SETR_PUP = "setr-pup"
    SETR_MLA = "setr-mla"
    SEGMENTER_MASK = "segmenter-mask"
    SEGMENTER_LINEAR = "segmenter-linear"


def decision_layers_option(default: str) -> Any:
    """`--decision-layers`; `default`: which layers they are where it is not given."""
    return typer.Option(
        metavar="N,…", help=f"Layers after which tokens are decided on, from 1, as 3,6,9. Default: {default}."
    )


Arch = Annotated[
    ArchChoice | None,
    typer.Option(
        metavar="NAME",
        help=f"The decoder, where the checkpoint does not name it or is a backbone alone: {', '.join(ArchChoice)}.",
    ),
]
Head = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The linear head of a DINOv2 or DINOv3 backbone, where it is a file of its own."),
]
Classes = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Number of classes, where neither checkpoint nor data says it; otherwise a check."
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="HEIGHTxWIDTH that the model runs at, or one number. Default: the checkpoint's."),
]
DecisionLayers = Annotated[str | None, decision_layers_option("the checkpoint's")]
Threshold = Annotated[list[str] | None, threshold_option("the checkpoint's")]


def read_fields(
    *,
    arch: ArchChoice | None,
    head: Path | None,
    classes: int | None,
    image_size: str | None,
    decision_layers: str | None,
    decoder_layers: str | None = None,
    head_norm: bool | None = None,
    threshold: Sequence[str] | None,
    dense: bool,
) -> dict[str, Any]:
    """Fields of `dovit.export.checkpoints.ReadOptions` by these options. Raises UsageError that names the option."""
    return {
        "arch": arch.value if arch else None,
        "head": head,
        "classes": classes,
        "image_size": parse_size(image_size, "--image-size"),
        "decision_layers": parse_numbers(decision_layers, int, "--decision-layers"),
        "decoder_layers": parse_numbers(decoder_layers, int, "--decoder-layers"),
        "head_norm": head_norm,
        "thresholds": parse_thresholds(threshold),
        "dense": dense,
    }
