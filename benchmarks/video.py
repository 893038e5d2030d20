"""Measures how much of a video's decoding and encoding is hidden behind inference: python -m dovit.benchmarks.video --help."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dovit.runtime import draw
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import Engine, Threads
from dovit.runtime.loading import load
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.runtime.video import Frame, Video
from dovit.runtime.video.pipeline import AHEAD, Seconds, run_pipeline
from dovit.runtime.video.write import VideoWriter
from dovit.scenes import scene


def command(
    engine: Engine,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the video.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 5,
    height: Annotated[int, typer.Option(min=64, help="Of the frames; the width is twice as much.")] = 360,
    threads: Threads = None,
) -> None:
    """Run a drawn video with its stages one after the other and at the same time, in turns; labels and overlay are written."""
    with tempfile.TemporaryDirectory() as name, load(engine, threads=threads) as session:
        folder = Path(name)
        drive = _draw(folder / "drive.mp4", frames, height)
        _run(session, drive, folder, 0)
        pairs = [(_run(session, drive, folder, 0), _run(session, drive, folder, AHEAD)) for _ in range(rounds)]
    apart, together = ([pair[i]["seconds"] for pair in pairs] for i in (0, 1))
    report = {
        "frames": frames,
        "size": [height, 2 * height],
        "one_at_a_time": {key: statistics.median(pair[0][key] for pair in pairs) for key in pairs[0][0]},
        "at_the_same_time": {key: statistics.median(pair[1][key] for pair in pairs) for key in pairs[0][1]},
        "speed_up": statistics.median(a / b for a, b in zip(apart, together, strict=True)),
    }
    print(json.dumps(report, indent=1))


def _draw(path: Path, frames: int, height: int) -> Path:
    """A street that passes by, as H.264."""
    street, _ = scene(7, height, 2 * height)
    writer = VideoWriter(path, lossless=False, time_base=Fraction(1, 25), rate=Fraction(25), source="drawn")
    for number in range(frames):
        writer.write(np.roll(street, -4 * number, axis=1), number)
    writer.close()
    return path


def _run(session: Session, drive: Path, folder: Path, ahead: int) -> dict[str, float]:
    seconds, start = Seconds(), time.perf_counter()
    with Video(drive) as video:
        made: dict[str, Any] = {"time_base": video.time_base, "rate": video.rate, "source": "drive.mp4"}
        labels = VideoWriter(folder / "labels.mkv", lossless=True, **made)
        overlay = VideoWriter(folder / "overlay.mp4", lossless=False, **made)

        def write(_: int, frame: Frame, result: Result) -> None:
            labels.write(result.labels, frame.pts)
            overlay.write(np.asarray(draw.overlay(frame.pixels, result.labels, session.palette)), frame.pts)

        def segment(pixels: Iterable[np.ndarray]) -> Iterator[Result]:
            return session.stream(pixels)

        for _ in run_pipeline(video, segment, write, seconds, ahead):
            pass
        labels.close()
        overlay.close()
    return {
        "seconds": time.perf_counter() - start,
        "decoding": seconds.decoding,
        "inference": seconds.inference,
        "encoding": seconds.encoding,
    }


if __name__ == "__main__":
    run_command(command, "python -m dovit.benchmarks.video")
