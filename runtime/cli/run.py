"""`dovit-run`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from dovit.runtime import draw
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.profile import profile_images
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import expand, read_image
from dovit.runtime.palettes import default_palette
from dovit.runtime.result import Result
from dovit.runtime.session import Session, load

EPILOG = """Examples:

dovit-run --engine engines/ image.png

dovit-run --engine engines/ photos/ --out labels/ --mode slide --overlay --keep-maps

dovit-run --engine engines/ 'frames/*.jpg' --threshold 0.98,0.97,0.96 --json

dovit-run --engine engines/ image.png --backend tensorrt-rtx --profile
"""


class ModeChoice(StrEnum):
    """How an image of another size is brought to the bundle's."""

    whole = "whole"
    slide = "slide"


class ScheduleChoice(StrEnum):
    """How many tokens are kept."""

    exact = "exact"
    bucketed = "bucketed"


class PrecisionChoice(StrEnum):
    """In what the plans compute."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class BackendChoice(StrEnum):
    """What runs the steps."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def command(
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or quoted globs.")],
    engine: Annotated[Path, typer.Option(help="The bundle's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; made if missing.")] = Path("dovit-out"),
    mode: Annotated[ModeChoice, typer.Option(help="Resize the image, or slide a window over it.")] = ModeChoice.whole,
    threshold: Annotated[
        list[str] | None, typer.Option(help="ξ: one value, or one a decision: 0.98,0.97,0.96, or the flag repeated.")
    ] = None,
    schedule: Annotated[
        ScheduleChoice | None,
        typer.Option(help="Keep what ξ says, or fill up to a capacity; default exact on a CPU, bucketed on a GPU."),
    ] = None,
    backend: Annotated[BackendChoice, typer.Option(help="What runs the steps.")] = BackendChoice.auto,
    precision: Annotated[PrecisionChoice | None, typer.Option(help="Of the plans; default those built last.")] = None,
    device: Annotated[int, typer.Option(min=0, help="Number of the GPU.")] = 0,
    graph: Annotated[
        bool | None,
        typer.Option("--graph/--no-graph", help="One CUDA graph an image; default where the driver has it."),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also the image under its labels.")] = False,
    keep_maps: Annotated[
        bool, typer.Option("--keep-maps", help="Also, for each decision, the patches still kept.")
    ] = False,
    confidence_maps: Annotated[
        bool, typer.Option("--confidence-maps", help="Also, for each decision, the confidence.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time every operation on the GPU instead, and write no pictures.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for each image.")] = False,
) -> None:
    """Segment images: labels go to OUT/NAME.png as indexed PNG."""
    files = expand(images)
    session = load(
        engine, backend.value, precision=precision.value if precision else None, device=device, graph=graph
    )  # fmt: skip
    chosen = schedule.value if schedule else session.schedule
    thresholds = session.check_thresholds(_numbers(threshold))
    if profile:
        profile_images(session, files, thresholds, chosen, as_json=as_json)
        return
    decisions = len(session.manifest.decisions)
    endings = [".png"] + [".overlay.png"] * overlay
    endings += [f".keep{k}.png" for k in range(1, decisions + 1) if keep_maps]
    endings += [f".confidence{k}.png" for k in range(1, decisions + 1) if confidence_maps]
    names = output_names(files, endings)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DovitError(f"{out}: cannot be made a folder ({error.strerror}); give --out another one") from None
    _protect_inputs(files, [out / (name + ending) for name in names for ending in endings])
    extras = {"overlay": overlay, "keep": keep_maps, "confidence": confidence_maps}
    console, failed = Console(stderr=True), 0
    # With its stdout redirection on, rich would send our lines to stderr and break them at the terminal's width: right
    # for people who see both in one terminal, and wrong for a file, a pipe, or whoever asked for JSON.
    shown = console.is_terminal and not as_json
    with Progress(console=console, transient=True, disable=not shown, redirect_stdout=sys.stdout.isatty()) as bar:
        for file, name in bar.track(list(zip(files, names, strict=True)), description="segmenting"):
            try:
                image = read_image(file)
                start = time.perf_counter()
                result = session(image, mode=mode.value, threshold=thresholds, schedule=chosen)
                milliseconds = (time.perf_counter() - start) * 1e3
                labels = _save(session, image, result, out / name, extras)
            except DovitError as error:
                if len(files) == 1:
                    raise
                failed += 1
                named = str(error) if str(file) in str(error) else f"{file}: {error}"
                console.print(f"dovit-run: error: {named}", highlight=False, markup=False, soft_wrap=True)
                continue
            row = {
                "image": str(file), "labels": str(labels), "size": list(result.labels.shape), "tokens": result.tokens,
                "kept": list(result.kept), "backend": session.backend, "schedule": chosen,
                "latency_ms": round(milliseconds, 3),
            }  # fmt: skip
            _report(row, as_json)
    if failed:
        others = f"; the others are in {out}" if failed < len(files) else ""
        raise DovitError(f"{failed} of {len(files)} images failed{others}")


def _report(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(row), flush=True)
    else:
        kept = "/".join(map(str, row["kept"])) or "all"
        print(f"{row['image']} → {row['labels']}  kept {kept} of {row['tokens']} tokens, {row['latency_ms']:.0f} ms")


def output_names(files: list[Path], endings: Sequence[str] = (".png",)) -> list[str]:
    """A name for each file, such that no two of `name + ending` are one file, even where case does not count.

    It is the file's stem; where that is taken, its name with the suffix, or its folder's name in front, or a number.
    """
    names: list[str] = []
    taken: set[str] = set()

    def outputs(name: str) -> set[str]:
        return {(name + ending).casefold() for ending in endings}

    for file in files:
        first = [file.stem, file.name.replace(".", "_"), f"{file.resolve().parent.name}_{file.stem}"]
        candidates = chain(first, (f"{file.stem}_{k}" for k in count(2)))
        names.append(next(name for name in candidates if not outputs(name) & taken))
        taken |= outputs(names[-1])
    return names


def _protect_inputs(files: list[Path], outputs: list[Path]) -> None:
    inputs = {file.resolve() for file in files}
    clash = next((path for path in outputs if path.resolve() in inputs), None)
    if clash:
        raise UsageError(f"{clash} is an input image and would be overwritten: give --out another folder")


def _save(session: Session, image: Any, result: Result, base: Path, extras: dict[str, bool]) -> Path:
    manifest = session.manifest
    palette = manifest.palette or default_palette(manifest.classes)
    labels = base.with_name(f"{base.name}.png")
    draw.save_labels(result.labels, palette, labels)
    if extras["overlay"]:
        draw.save(draw.overlay(image, result.labels, palette), base.with_name(f"{base.name}.overlay.png"))
    if extras["keep"] or extras["confidence"]:
        size = (image.shape[0], image.shape[1])
        keeps, confidences = draw.whole_maps(result, size, manifest.image_size)
        for number, (keep, confidence) in enumerate(zip(keeps, confidences, strict=True), start=1):
            if extras["keep"]:
                draw.save(draw.keep_picture(image, keep), base.with_name(f"{base.name}.keep{number}.png"))
            if extras["confidence"]:
                picture = draw.confidence_picture(confidence, size)
                draw.save(picture, base.with_name(f"{base.name}.confidence{number}.png"))
    return labels


def _numbers(given: Sequence[str] | None) -> tuple[float, ...] | None:
    if not given:
        return None
    text = ",".join(given)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--threshold {text}: give numbers separated by commas, as 0.98,0.97,0.96") from None


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-run", epilog=EPILOG)
