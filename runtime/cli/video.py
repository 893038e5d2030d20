"""`dovit-run` on videos."""

from __future__ import annotations

import glob
import json
import re
import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dovit.runtime import draw
from dovit.runtime.cli.inputs import PICTURES, Input
from dovit.runtime.cli.output import error_console, print_line, stage_progress
from dovit.runtime.cli.outputs import Picture, output_folders, plan_pictures
from dovit.runtime.errors import DovitError, OutputError, UsageError, printable
from dovit.runtime.files import atomic_write, real_path
from dovit.runtime.interrupts import Interrupted, signal_handlers
from dovit.runtime.palettes import default_palette
from dovit.runtime.progress import Progress
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.runtime.video.pipeline import Seconds, run_pipeline
from dovit.runtime.video.read import Frame, Video, is_address, is_camera, without_secrets
from dovit.runtime.video.write import VideoWriter, source_of

# Names that are taken for videos. FFmpeg reads many more: --video takes any.
SUFFIXES = {
    ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m2v",
    ".m3u8", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpd", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
}  # fmt: skip
STREAMS = ("rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
LABELS = ".labels.mkv"
_FRAME = re.compile(r"[0-9]{6}\.png|[1-9][0-9]{6,}\.png")  # names that `_write_png` gives
LINE_EVERY = 10.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class VideoOptions:
    """What dovit-run was asked for beside the session's settings."""

    frames: bool = False  # labels as a PNG a frame
    overlay: bool = False
    keep_maps: bool = False
    confidence_maps: bool = False
    format: str | None = None
    most: int | None = None  # frames
    overwrite: bool = False
    as_json: bool = False


@dataclass
class _Count:
    """What was segmented of one video."""

    frames: int = 0
    kept: list[int] = field(default_factory=list)  # summed over the frames
    tokens: int = 0
    start: float = field(default_factory=time.perf_counter)

    def add(self, result: Result) -> None:
        self.frames += 1
        self.tokens += result.tokens
        self.kept = [sum(pair) for pair in zip(self.kept, result.kept, strict=True)] if self.kept else list(result.kept)

    @property
    def rate(self) -> float:
        return self.frames / max(time.perf_counter() - self.start, 1e-9)

    def mean(self, value: int) -> float:
        return value / max(self.frames, 1)

    def text(self) -> str:
        kept = "/".join(f"{self.mean(k):.0f}" for k in self.kept) or "all"
        return f"{self.rate:.1f} frames/s, kept {kept} of {self.mean(self.tokens):.0f} tokens"


class _Lines:
    """Prints how far a video is, and with `as_json` a row a frame. What prevents it is kept as `failure` instead of being raised:
    the outputs are still open then, and it is no failure of theirs."""

    def __init__(self, video: str, expected: int | None, say: Progress, as_json: bool) -> None:
        self.failure: OSError | SystemExit | None = None
        self._video, self._expected, self._say, self._as_json = video, expected, say, as_json
        self._console, self._last = error_console(), time.monotonic()

    def print(self, number: int, frame: Frame, result: Result, count: _Count) -> None:
        try:
            self._print(number, frame, result, count)
        except (OSError, SystemExit) as failure:  # rich ends the program where the reader of stderr went away
            self.failure = failure

    def _print(self, number: int, frame: Frame, result: Result, count: _Count) -> None:
        total = f" of {self._expected}" if self._expected else ""
        text = f"frame {count.frames}{total}, {count.text()}"
        self._say(f"{self._video}: {text}", count.frames / self._expected if self._expected else None)
        if not self._console.is_interactive and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            print_line(self._console, text)
        if self._as_json:
            row = {"video": self._video, "frame": number, "time": frame.time, "kept": list(result.kept)}
            print(json.dumps(row), flush=True)


def find_videos(given: Sequence[str], *, every: bool = False) -> list[str]:
    """The videos among the arguments, globs expanded; `every` takes all for videos, otherwise their names decide: suffixes of
    videos, addresses of streams, cameras. None where the arguments are images. Raises UsageError for some of each."""
    names: list[str] = []
    for text in given:
        found = [text]
        if glob.has_magic(text) and not is_address(text) and not Path(text).exists():
            found = sorted(glob.glob(text, recursive=True)) or found
        names += [name for name in found if name not in names]
    videos = [name for name in names if every or _is_video(name)]
    if videos and len(videos) < len(names):
        other = next(name for name in names if name not in videos)
        raise UsageError(f"{other} is no video, and {without_secrets(videos[0])} is one: run images and videos apart")
    return videos


def _is_video(name: str) -> bool:
    if is_address(name):
        parts = urlsplit(name)
        return parts.scheme.lower() in STREAMS or Path(parts.path).suffix.lower() in SUFFIXES
    suffix = Path(name).suffix.lower()
    return is_camera(name) or (suffix in SUFFIXES and suffix not in PICTURES and not Path(name).is_dir())


def run_videos(
    session: Session, videos: Sequence[str], out: Path, options: VideoOptions, settings: dict[str, Any]
) -> None:
    """Segment each video; `settings` are those of a call of the session."""
    decisions = range(1, len(session.manifest.decisions) + 1)
    endings = ["" if options.frames else LABELS] + [".overlay.mp4"] * options.overlay
    endings += [f".keep{k}.mp4" for k in decisions if options.keep_maps]
    endings += [f".confidence{k}.mp4" for k in decisions if options.confidence_maps]
    inputs = [Input(Path(_file_name(name))) for name in videos]
    pictures = plan_pictures(inputs, [1] * len(inputs), out, endings)
    read = {real_path(picture.file) for picture in pictures}
    for name, picture in zip(videos, pictures, strict=True):
        _check_outputs(name, picture, endings, options, read)
    console, done, failed = error_console(), 0, 0
    with output_folders(pictures, out):
        for name, picture in zip(videos, pictures, strict=True):
            try:
                _run_video(session, name, picture, endings, options, settings)
                done += 1
            except Interrupted:
                raise
            except OutputError as error:
                if len(videos) == 1:
                    raise
                raise OutputError(f"{error}; {done} of {len(videos)} videos were done before") from None
            except DovitError as error:
                if len(videos) == 1:
                    raise
                failed += 1
                print_line(console, printable(f"dovit-run: error: {error}"))
        if failed:
            raise DovitError(f"{failed} of {len(videos)} videos failed")


def _file_name(name: str) -> str:
    """A file's name as it is; for an address, its last part, or its host."""
    if not is_address(name):
        return name
    parts = urlsplit(without_secrets(name))
    text = Path(parts.path).name or parts.netloc
    return re.sub(r"[^\w.-]+", "_", text) or parts.scheme


def _source(name: str, picture: Picture) -> str:
    return without_secrets(name) if is_address(name) else picture.source


def _check_outputs(
    name: str, picture: Picture, endings: Sequence[str], options: VideoOptions, read: Container[Path]
) -> None:
    """Raise UsageError where an output would replace one of the videos that are `read`, or what was made of another one."""
    for ending in endings:
        output = picture.output(ending)
        if real_path(output) in read:
            raise UsageError(f"{output} is an input video and would be overwritten: give --out another folder")
        if options.overwrite:
            continue
        for file, source in _sources(output, ending):
            if source != _source(name, picture):
                made = f"was made from {source}" if source else "was not written by dovit-run"
                raise UsageError(f"{file} is there and {made}: give --out another folder, or --overwrite")


def _sources(output: Path, ending: str) -> list[tuple[Path, str | None]]:
    """The files that are there of an output, and of which video each was made; None: of none."""
    if not output.exists():
        return []
    if ending or not output.is_dir():
        return [(output, source_of(output))]
    return [(file, _video_of(file)) for file in sorted(output.iterdir()) if _FRAME.fullmatch(file.name)]


def _video_of(frame: Path) -> str | None:
    return (draw.source_of(frame) or "").rpartition(", frame ")[0] or None


def _remove_frames(folder: Path, count: int) -> None:
    """Remove what an earlier, longer run wrote beyond the `count` frames of this one."""
    for file in folder.iterdir():
        if _FRAME.fullmatch(file.name) and int(file.stem) >= count and _video_of(file):
            try:
                file.unlink()
            except OSError as error:
                raise DovitError(f"{file}: of an earlier run, and cannot be removed ({error.strerror})") from None


def _run_video(
    session: Session,
    name: str,
    picture: Picture,
    endings: Sequence[str],
    options: VideoOptions,
    settings: dict[str, Any],
) -> None:
    shown, source = without_secrets(name), _source(name, picture)
    palette = session.manifest.palette or default_palette(session.manifest.classes)
    replaced = any(picture.output(ending).exists() for ending in endings)
    seconds, count = Seconds(), _Count()
    signals: list[int] = []
    with Video(name, options.format) as video:
        with ExitStack() as outputs:  # an output is renamed to its name when the block ends without an exception
            draws: list[Callable[[int, Frame, Result], None]] = []
            for ending in endings:
                if not ending:
                    folder = picture.output("")
                    outputs.enter_context(output_folders([picture], folder))
                    draws.append(partial(_write_png, folder, source, palette))
                    continue
                part = outputs.enter_context(atomic_write(picture.output(ending)))
                writer = VideoWriter(
                    part, lossless=ending == LABELS, time_base=video.time_base, rate=video.rate, source=source
                )
                outputs.enter_context(closing(writer))
                paint = partial(_paint, ending, palette, session.manifest.image_size)
                draws.append(partial(_append, writer, paint))

            def write(number: int, frame: Frame, result: Result) -> None:
                for one in draws:
                    one(number, frame, result)

            lines = _Lines(shown, video.expected, outputs.enter_context(stage_progress()), options.as_json)
            # the first signal ends the video after the frame under way, so that what was made of it is kept; another interrupts
            outputs.enter_context(_first_signal(signals))
            steps = run_pipeline(video, lambda pixels: session.stream(pixels, **settings), write, seconds)
            failure: DovitError | None = None
            try:
                with closing(steps):  # type: ignore[type-var]
                    for number, frame, result in steps:
                        count.add(result)
                        lines.print(number, frame, result, count)
                        if signals or lines.failure or count.frames == options.most:
                            break
            except DovitError as stopped:
                if not count.frames:
                    raise
                failure = stopped
            if not count.frames:
                raise DovitError(f"{shown}: no frame of it could be decoded; get a whole copy")
        damaged, cut_off = video.damaged, video.cut_off
    if options.frames:
        _remove_frames(picture.output(""), count.frames)
    if lines.failure is not None:  # the outputs have the frames until then
        raise lines.failure
    _report(picture, endings, shown, count, seconds, damaged, replaced, options.as_json)
    kept = f"the outputs have the {count.frames} frames until then"
    if signals:
        raise Interrupted(f"{shown}: interrupted; {kept}", signals[0])
    if failure is not None:
        kind = OutputError if isinstance(failure, OutputError) else DovitError
        raise kind(f"{shown}: {failure}; {kept}")
    if damaged or cut_off:
        what = [f"{damaged} packets or frames are damaged"] * bool(damaged) + [f"it ends early ({cut_off})"] * bool(
            cut_off
        )
        raise DovitError(
            f"{shown}: {' and '.join(what)}; the outputs have the {count.frames} frames that could be decoded"
        )


def _first_signal(signals: list[int]) -> Any:
    def act(number: int) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise KeyboardInterrupt

    return signal_handlers(act, all_signals=True, interrupt=False)


def _append(
    writer: VideoWriter, paint: Callable[[Frame, Result], np.ndarray], _: int, frame: Frame, result: Result
) -> None:
    writer.write(paint(frame, result), frame.pts)


def _write_png(
    folder: Path, source: str, palette: Sequence[Sequence[int]], number: int, frame: Frame, result: Result
) -> None:
    draw.save_labels(result.labels, palette, folder / f"{number:06}.png", f"{source}, frame {number}")


def _paint(
    ending: str, palette: Sequence[Sequence[int]], window: tuple[int, int], frame: Frame, result: Result
) -> np.ndarray:
    """What the output with this ending shows of a frame: labels [H, W], or a picture [H, W, 3]."""
    if ending == LABELS:
        return result.labels if result.labels.dtype == np.uint8 else result.labels.astype(np.uint16)
    if ending == ".overlay.mp4":
        return np.asarray(draw.overlay(frame.pixels, result.labels, palette))
    size = (frame.pixels.shape[0], frame.pixels.shape[1])
    keeps, confidences = draw.whole_maps(result, size, window)
    number = int(re.findall(r"\d+", ending)[0]) - 1
    if ending.startswith(".keep"):
        return np.asarray(draw.keep_picture(frame.pixels, keeps[number]))
    return np.asarray(draw.confidence_picture(confidences[number], size))


def _report(
    picture: Picture,
    endings: Sequence[str],
    shown: str,
    count: _Count,
    seconds: Seconds,
    damaged: int,
    replaced: bool,
    as_json: bool,
) -> None:
    passed = time.perf_counter() - count.start
    outputs = [str(picture.output(ending)) for ending in endings]
    if as_json:
        row = {
            "video": shown,
            "outputs": outputs,
            "frames": count.frames,
            "damaged": damaged,
            "replaced": replaced,
            "seconds": round(passed, 3),
            "frames_per_second": round(count.frames / passed, 3),
            "tokens": count.mean(count.tokens),
            "kept": [count.mean(kept) for kept in count.kept],
            "decoding_s": round(seconds.decoding, 3),
            "inference_s": round(seconds.inference, 3),
            "encoding_s": round(seconds.encoding, 3),
        }
        print(json.dumps(row), flush=True)
        return
    stages = (
        f"decoding {seconds.decoding:.1f} s, inference {seconds.inference:.1f} s, encoding {seconds.encoding:.1f} s"
    )
    print(
        f"{printable(shown)} → {printable(', '.join(outputs))}  {count.frames} frames in {passed:.1f} s, "
        f"{count.text()} on average; {stages}, at the same time{', replaced' if replaced else ''}"
    )
