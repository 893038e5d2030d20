"""`dovit-run`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from dovit.runtime import draw
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.backends import print_backends
from dovit.runtime.cli.inputs import find_inputs, page_count
from dovit.runtime.cli.options import (
    Backend,
    BackendChoice,
    Engine,
    Mode,
    Precision,
    Provider,
    ProviderChoice,
    Schedule,
    Threads,
    Threshold,
    json_option,
    recursive_option,
)
from dovit.runtime.cli.output import error_console, print_line, progress_bar
from dovit.runtime.cli.outputs import Picture, check_outputs, output_folders, plan_pictures
from dovit.runtime.cli.profile import profile_images
from dovit.runtime.cli.unused import refuse_unused, refuse_without_decisions
from dovit.runtime.cli.values import parse_thresholds
from dovit.runtime.cli.video import VideoOptions, find_videos, run_videos
from dovit.runtime.errors import DovitError, OutputError, UsageError, printable
from dovit.runtime.files import check_folder_name
from dovit.runtime.images import read_image, read_pages
from dovit.runtime.loading import load
from dovit.runtime.palettes import default_palette
from dovit.runtime.result import Result
from dovit.runtime.session import Session

EPILOG = """\b
Examples:
    dovit-run --engine engines/ image.png
    dovit-run --engine engines/ photos/ --out labels/ --mode slide --overlay \\
        --keep-maps
    dovit-run --engine engines/ dataset/ --recursive --out labels/
    dovit-run --engine engines/ 'frames/*.jpg' --threshold 0.98,0.97,0.96 \\
        --json
    dovit-run --engine engines/ image.png --provider openvino --precision bf16
    dovit-run --engine engines/ image.png --backend tensorrt-rtx --profile
    dovit-run --engine engines/ drive.mp4 --overlay
    dovit-run --engine engines/ rtsp://camera/stream --max-frames 500
    dovit-run --list-backends
"""


def _list_backends(context: typer.Context, option: typer.CallbackParam, value: bool) -> bool:
    """The callback of --list-backends and of --json, which may come in either order: the second of them acts, before what else
    the command needs is asked for."""
    given = {**context.params, str(option.name): value}
    if given.get("list_backends") and "as_json" in given:
        print_backends(as_json=given["as_json"])
        raise typer.Exit
    return value


def command(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Image files, folders, or quoted globs; or videos.")
    ],
    engine: Engine,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the pictures go; made if missing.")] = Path(
        "dovit-out"
    ),
    recursive: Annotated[bool, recursive_option(", which OUT then has as well")] = False,
    all_pages: Annotated[
        bool, typer.Option("--all-pages", help="Every page of a TIFF, or frame of an animation: NAME, NAME.p2, …")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Also write over what was made from another image, or by another program."),
    ] = False,
    mode: Mode = None,
    threshold: Threshold = None,
    schedule: Schedule = None,
    backend: Backend = BackendChoice.auto,
    precision: Precision = None,
    provider: Provider = ProviderChoice.auto,
    check_accuracy: Annotated[
        bool,
        typer.Option(
            "--check-accuracy/--no-check-accuracy",
            help="Refuse bf16 on a CPU where its results are too far from float32's, and int8 with OpenVINO where sums saturate.",
        ),
    ] = True,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where OpenVINO keeps what it compiled, to start faster the next time."),
    ] = None,
    threads: Threads = None,
    device: Annotated[int, typer.Option(min=0, metavar="N", help="Number of the GPU.")] = 0,
    graph: Annotated[
        bool | None,
        typer.Option("--graph/--no-graph", help="On a GPU: one CUDA graph an image. Default: where the driver has it."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also NAME.overlay.png: the image under its labels.")
    ] = False,
    keep_maps: Annotated[
        bool, typer.Option("--keep-maps", help="Also NAME.keepK.png: the patches kept after each decision K.")
    ] = False,
    confidence_maps: Annotated[
        bool, typer.Option("--confidence-maps", help="Also NAME.confidenceK.png: the confidence at each decision K.")
    ] = False,
    video: Annotated[
        bool, typer.Option("--video", help="IMAGES are videos, whatever their names: files, addresses, cameras.")
    ] = False,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames", help="Of a video, labels as a PNG a frame: NAME/000000.png, … Default: NAME.labels.mkv."
        ),
    ] = False,
    video_format: Annotated[
        str | None, typer.Option(metavar="NAME", help="FFmpeg's name of a video's format or device, as v4l2.")
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of a video, the first N frames only.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time every operation on the GPU instead, and write no pictures.")
    ] = False,
    list_backends: Annotated[
        bool,
        typer.Option(
            "--list-backends",
            is_eager=True,
            callback=_list_backends,
            help="What can run bundles on this machine, what `auto` takes, and why; then exit.",
        ),
    ] = False,
    as_json: Annotated[bool, json_option(is_eager=True, callback=_list_backends)] = False,
) -> None:
    """Segment images: the labels go to OUT/NAME.png, a PNG whose pixel values are the class numbers. Of a video they go to
    OUT/NAME.labels.mkv, without loss.

    A picture in OUT that was made from the same image is replaced. One that was made from another image, or by another
    program, stays, and the command ends before it begins, unless --overwrite is given.
    """
    videos = find_videos(images, every=video)
    for_images = {"--recursive": recursive, "--all-pages": all_pages, "--profile": profile}
    for_videos = {"--frames": frames, "--video-format": video_format, "--max-frames": max_frames}
    wrong = next((flag for flag, given in (for_images if videos else for_videos).items() if given), None)
    if wrong is not None:
        hint = f"leave it out for {videos[0]}" if videos else f"name one, or say --video if {images[0]} is one"
        raise UsageError(f"{wrong} is for {'images' if videos else 'videos'}: {hint}")
    if profile:
        of_pictures = {
            "--overlay": overlay,
            "--keep-maps": keep_maps,
            "--confidence-maps": confidence_maps,
            "--overwrite": overwrite,
            "--mode": mode is not None,
        }
        refuse_unused(of_pictures, "--profile times passes of the model, and writes no pictures")
    check_folder_name(out, "--out")
    inputs = [] if videos else find_inputs(images, recursive=recursive, skip=out)
    files = [one.file for one in inputs]
    session = load(
        engine,
        backend.value,
        threads=threads,
        precision=precision.value if precision else None,
        device=device,
        graph=graph,
        provider=provider.value,
        check_accuracy=check_accuracy,
        cache=cache,
    )
    console = error_console()
    if session.provider_reason:
        print_line(console, f"dovit-run: note: provider {session.provider}: {session.provider_reason}")
    chosen = schedule.value if schedule else session.schedule
    how = mode.value if mode else session.manifest.mode
    about_tokens = {
        "--threshold": bool(threshold),
        "--schedule": schedule is not None,
        "--keep-maps": keep_maps,
        "--confidence-maps": confidence_maps,
    }
    refuse_without_decisions(about_tokens, len(session.manifest.decisions))
    thresholds = session.check_thresholds(parse_thresholds(threshold))
    settings = {"mode": how, "threshold": thresholds, "schedule": chosen}
    if profile:
        profile_images(session, files, thresholds, chosen, as_json=as_json)
        return
    if videos:
        options = VideoOptions(
            frames, overlay, keep_maps, confidence_maps, video_format, max_frames, overwrite, as_json
        )
        run_videos(session, videos, out, options, settings)
        return
    decisions = len(session.manifest.decisions)
    endings = [".png"] + [".overlay.png"] * overlay
    endings += [f".keep{k}.png" for k in range(1, decisions + 1) if keep_maps]
    endings += [f".confidence{k}.png" for k in range(1, decisions + 1) if confidence_maps]
    pages = [page_count(file) for file in files]
    pictures = plan_pictures(inputs, pages if all_pages else [1] * len(files), out, endings)
    check_outputs(pictures, endings, overwrite=overwrite)
    for file, there in zip(files, pages, strict=True):
        if there > 1 and not all_pages:
            print_line(
                console,
                f"dovit-run: note: {printable(str(file))}: only the first of its {there} pages; --all-pages takes all",
            )
    extras = {"overlay": overlay, "keep": keep_maps, "confidence": confidence_maps}
    with output_folders(pictures, out):
        _segment(session, pictures, out, settings, extras, as_json=as_json)


def _segment(
    session: Session,
    pictures: Sequence[Picture],
    out: Path,
    settings: dict[str, Any],
    extras: dict[str, bool],
    *,
    as_json: bool,
) -> None:
    """Segment each picture and save the outputs below `out`; `settings` are those of a call of the session. Raises
    DovitError where one failed, after the others."""
    console, reader = error_console(), _Reader()
    done = failed = 0
    with progress_bar(console, shown=not as_json) as bar:
        for picture in bar.track(pictures, description="segmenting"):
            try:
                image = reader.read(picture)
                start = time.perf_counter()
                result = session(image, **settings)
                milliseconds = (time.perf_counter() - start) * 1e3
                replaced = picture.output(".png").exists()
                _save(session, image, result, picture, extras)
            except OutputError as error:
                if len(pictures) == 1:
                    raise
                raise OutputError(f"{error}; {done} of {len(pictures)} images were done before") from None
            except DovitError as error:
                if len(pictures) == 1:
                    raise
                failed += 1
                reason = str(error).removeprefix(f"{picture}: ").removeprefix(f"{picture.file}: ")
                print_line(console, printable(f"dovit-run: error: {picture}: {reason}"))
                continue
            row = {
                "image": str(picture.file),
                "page": picture.page,
                "labels": str(picture.output(".png")),
                "replaced": replaced,
                "size": list(result.labels.shape),
                "tokens": result.tokens,
                "kept": list(result.kept),
                "backend": session.backend,
                "provider": session.provider,
                "mode": settings["mode"],
                "schedule": settings["schedule"],
                "latency_ms": round(milliseconds, 3),
            }
            _report(row, str(picture), as_json)
            done += 1
    if failed:
        others = f"; the others are in {out}" if failed < len(pictures) else ""
        raise DovitError(f"{failed} of {len(pictures)} images failed{others}")


class _Reader:
    """Reads pictures in their order, a file's pages one after the other: an animation cannot be entered in the middle."""

    def __init__(self) -> None:
        self._pages: Iterator[np.ndarray] = iter(())

    def read(self, picture: Picture) -> np.ndarray:
        """uint8 [H, W, 3]. Raises DovitError."""
        if picture.pages == 1:
            return read_image(picture.file)
        if picture.page == 1:
            self._pages = read_pages(picture.file)
        image = next(self._pages, None)
        if image is None:
            raise DovitError(f"{picture}: not read, since a page before it is damaged")
        return image


def _report(row: dict[str, Any], image: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(row), flush=True)
    else:
        kept = "/".join(map(str, row["kept"])) or "all"
        replaced = ", replaced" if row["replaced"] else ""
        where = f"{printable(image)} → {printable(row['labels'])}"
        print(f"{where}  kept {kept} of {row['tokens']} tokens, {row['latency_ms']:.0f} ms{replaced}")


def _save(session: Session, image: np.ndarray, result: Result, picture: Picture, extras: dict[str, bool]) -> None:
    """All pictures of an image take their places when the last one is written: a full disk leaves none without the others."""
    manifest, source = session.manifest, picture.source
    palette = manifest.palette or default_palette(manifest.classes)
    with ExitStack() as written:

        def save(drawn: Image.Image, ending: str) -> None:
            written.enter_context(draw.saving(drawn, picture.output(ending), source))

        save(draw.labels_image(result.labels, palette), ".png")
        if extras["overlay"]:
            save(draw.overlay(image, result.labels, palette), ".overlay.png")
        if extras["keep"] or extras["confidence"]:
            size = (image.shape[0], image.shape[1])
            keeps, confidences = draw.whole_maps(result, size, manifest.image_size)
            for number, (keep, confidence) in enumerate(zip(keeps, confidences, strict=True), start=1):
                if extras["keep"]:
                    save(draw.keep_picture(image, keep), f".keep{number}.png")
                if extras["confidence"]:
                    save(draw.confidence_picture(confidence, size), f".confidence{number}.png")


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-run", epilog=EPILOG)
