"""Options that several commands have: one name, one meaning and one help text for each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class ModeChoice(StrEnum):
    """How an image of another size is brought to the bundle's."""

    whole = "whole"
    slide = "slide"


class ScheduleChoice(StrEnum):
    """How many tokens are kept."""

    exact = "exact"
    rounded = "rounded"
    bucketed = "bucketed"


class PrecisionChoice(StrEnum):
    """What plans, or OpenVINO on a CPU, compute in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class BackendChoice(StrEnum):
    """What runs a bundle's steps."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class ProviderChoice(StrEnum):
    """What runs a bundle's steps on a CPU."""

    auto = "auto"
    cpu = "cpu"
    openvino = "openvino"


def threshold_option(default: str, when: str = "") -> Any:
    """`--threshold`; `default`: what ξ is where it is not given, `when`: words after "stops"."""
    return typer.Option(
        metavar="ξ,…",
        help=f"Confidence ξ at which a token stops{when}: one value for all decisions, or one each, as 0.98,0.97,0.96. "
        f"Default: {default}.",
    )


def mode_option(default: str) -> Any:
    """`--mode`; `default`: whose mode it is unless given."""
    return typer.Option(
        metavar="MODE",
        help=f"whole: resize the image to the model's size; slide: move a window of that size over it. Default: {default}.",
    )


def recursive_option(more: str = "") -> Any:
    """`--recursive`; `more`: words after "subfolders"."""
    return typer.Option("--recursive", "-r", help=f"Search folders with all their subfolders{more}.")


def json_option(**more: Any) -> Any:
    """`--json`; `more`: further arguments of the option."""
    return typer.Option("--json", help="Print JSON instead of text.", **more)


ENGINE = typer.Option(metavar="FOLDER", help="The bundle, as dovit-export wrote it.")
SCHEDULE = typer.Option(
    metavar="NAME",
    help="exact: keep the tokens that ξ keeps; rounded: that many or the next multiple of 16; bucketed: as many as the next "
    "capacity. Default: on a CPU exact in fp32 and rounded in bf16, on a GPU bucketed.",
)
BACKEND = typer.Option(
    metavar="NAME", help="What runs the steps: onnxruntime (CPU), tensorrt, tensorrt-rtx (GPU), or auto: onnxruntime."
)
PRECISION = typer.Option(
    metavar="TYPE",
    help="Plans in fp32, fp16 or bf16, default those built last; on a CPU fp32, the default, or with OpenVINO bf16.",
)
PROVIDER = typer.Option(
    metavar="NAME",
    help="On a CPU: cpu, ONNX Runtime's own provider, openvino, or auto: the faster, measured when a small model is "
    "first loaded.",
)
THREADS = typer.Option(min=1, metavar="N", help="CPU threads. Default: all cores.")
KEEP = (
    "share of all tokens to keep after each decision, as 0.5,0.35,0.25 or 50%,35%,25%"  # in a sentence of each command
)

Engine = Annotated[Path, ENGINE]
Mode = Annotated[ModeChoice | None, mode_option("the bundle's")]
Schedule = Annotated[ScheduleChoice | None, SCHEDULE]
Backend = Annotated[BackendChoice, BACKEND]
Precision = Annotated[PrecisionChoice | None, PRECISION]
Provider = Annotated[ProviderChoice, PROVIDER]
Threads = Annotated[int | None, THREADS]
Threshold = Annotated[list[str] | None, threshold_option("the bundle's")]
Recursive = Annotated[bool, recursive_option()]
Json = Annotated[bool, json_option()]
