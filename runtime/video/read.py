"""Reads frames with FFmpeg's libraries (PyAV): files, stream addresses, cameras."""

from __future__ import annotations

import re
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np

from dovit.runtime.errors import DovitError, UsageError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

OPEN_TIMEOUT, READ_TIMEOUT = 30.0, 10.0  # seconds that an address may be silent
UNKNOWN_RATE = Fraction(25)  # for frames without times, as FFmpeg assumes for raw streams


@dataclass(frozen=True)
class Frame:
    """A frame, turned upright as the video's display matrix says. `pts` counts units of the video's `time_base` from its
    first frame; no two frames have the same."""

    pixels: np.ndarray  # [H, W, 3] uint8 RGB
    pts: int
    time: float  # seconds since the first frame


class Video:
    """An iterator over the frames of a video's first video stream, and a context manager that closes it.

    What cannot be decoded is left out and counted in `damaged`; a video that ends before its time says so in `cut_off`.
    """

    def __init__(self, address: str | Path, format: str | None = None) -> None:
        """`address`: a file, an address as rtsp://…, or a device; `format`: FFmpeg's name of its format or device where FFmpeg
        cannot find it out (`v4l2`, `lavfi`). Raises DovitError where it cannot be opened, UsageError where PyAV is missing."""
        av = import_av()
        self.address = str(address)
        path = Path(self.address)
        if format is None and is_camera(self.address):
            format = "v4l2"
        if format is None and not is_address(self.address):
            _check_file(path, self.name)
        try:
            self._container = av.open(self.address, format=format, timeout=(OPEN_TIMEOUT, READ_TIMEOUT))
        except (av.FFmpegError, OSError, ValueError) as error:
            hint = "" if format is None else f" as {format}"
            fix = "give a whole video that FFmpeg reads"
            if is_camera(self.address):
                fix = "check that the camera is connected (ls /dev/video*) and may be read"
            elif is_address(self.address):
                fix = "check the address, and that its server runs"
            raise DovitError(f"{self.name}: cannot be opened{hint} ({_reason(error)}); {fix}") from None
        if not self._container.streams.video:
            self._container.close()
            raise DovitError(f"{self.name}: has no pictures, only sound or data; give a video")
        stream = self._stream = self._container.streams.video[0]
        if stream.codec_context is None:
            self._container.close()
            raise DovitError(f"{self.name}: its codec is unknown to this FFmpeg; convert it to H.264")
        stream.thread_type = (
            "SLICE"  # threads that decode several frames at once lose whole ones at the end of a damaged file
        )
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or UNKNOWN_RATE
        self.time_base: Fraction = stream.time_base or 1 / self.rate
        self.expected: int | None = stream.frames or None  # frames, where the container says it
        self.damaged = 0  # packets that could not be decoded, and frames that were decoded with errors
        self.cut_off: str | None = None
        self._frames = self._upright()

    @property
    def name(self) -> str:
        """The address without user name, password and query."""
        return without_secrets(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or the connection."""
        self._frames.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def _upright(self) -> Generator[Frame, None, None]:
        first: int | None = None
        last, count = -1, 0
        longest = shown = 0  # a frame before the last, and the last, where its container says how long that is
        step = max(1, round(1 / (self.rate * self.time_base)))  # of a frame that has no time of its own
        for frame in self._decoded():
            self.damaged += bool(frame.is_corrupt)
            if frame.pts is not None and first is None:
                first = frame.pts
            pts = last + step if frame.pts is None or first is None else frame.pts - first
            before, last = last, max(pts if count else 0, last + 1)
            longest = max(longest, last - before) if count else 0
            count, shown = count + 1, frame.duration or 0
            yield Frame(_rgb(frame, self.name), last, float(last * self.time_base))
        end = self._end((first or 0) * self.time_base)
        if not count or self.cut_off:
            return
        if self.expected is not None and count + self.damaged < self.expected:
            self.cut_off = f"{count} of {self.expected} frames"
        elif self.expected is None and end is not None:
            latest = last + max(3 * step, longest, shown)  # the rate may be of frames much shorter than these
            if float(latest * self.time_base) < end:
                self.cut_off = f"{float((last + step) * self.time_base):.2f} of {end:.2f} seconds"

    def _decoded(self) -> Iterator[VideoFrame]:
        av = import_av()
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self.cut_off = _reason(error)
                packet = None
            if packet is None:
                break
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                if not isinstance(error, EOFError):
                    self.damaged += 1
        if self.cut_off is not None:  # the decoder still holds frames, which it gives after an ordinary end by itself
            try:
                yield from self._stream.codec_context.decode(None)
            except av.FFmpegError:
                self.damaged += 1

    def _end(self, first: Fraction) -> float | None:
        """Seconds from the first frame, which is shown at `first`, to the stream's end by its container; None where it does
        not say."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        text = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", self._stream.metadata.get("DURATION", ""))
        return None if text is None else 3600 * int(text[1]) + 60 * int(text[2]) + float(text[3]) - float(first)


def import_av() -> Any:
    """PyAV. Raises UsageError where it is missing."""
    try:
        import av
    except ModuleNotFoundError:
        raise UsageError("videos need the package av (PyAV): pip install 'dovit[video]'") from None
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines: what matters is in our sentences
    return av


def is_address(text: str) -> bool:
    """Whether this is an address as rtsp://…, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def is_camera(text: str) -> bool:
    """Whether this is a camera of Linux."""
    return re.fullmatch(r"/dev/video\d+", text) is not None


def without_secrets(address: str) -> str:
    """An address without user name, password and query; anything else as it is."""
    if not is_address(address):
        return address
    try:
        parts = urlsplit(address)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return address.partition("://")[0] + "://…"


def _check_file(path: Path, name: str) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DovitError(f"{name}: no such video; check the path") from None
    except (OSError, ValueError) as error:
        raise DovitError(f"{name}: cannot be read ({error}); name a video file") from None
    if stat.S_ISDIR(found.st_mode):
        raise DovitError(f"{name}: a folder, not a video; name a file in it")
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        raise DovitError(f"{name}: the file is empty; get a whole copy")


def _rgb(frame: VideoFrame, name: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB, upright: converted by the colour matrix and range that the frame states."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    side_data: Iterable[Any] = frame.side_data  # buffers; PyAV's annotations say otherwise
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            return turned(pixels, np.frombuffer(data, np.int32), name)
    return pixels


def turned(pixels: np.ndarray, matrix: np.ndarray, name: str) -> np.ndarray:
    """pixels [H, W, 3] as a display matrix (9 integers, FFmpeg's libavutil/display.h) says: the pixel (x, y) is shown at
    (a·x + c·y, b·x + d·y). Raises DovitError for other than right angles and mirrors."""
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if a and d and not b and not c:
        rows, columns = d < 0, a < 0
    elif b and c and not a and not d:
        pixels, rows, columns = pixels.transpose(1, 0, 2), b < 0, c < 0
    else:
        raise DovitError(f"{name}: its frames are turned by no right angle; write them upright with FFmpeg first")
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip() or type(error).__name__
