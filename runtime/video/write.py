"""Writes videos: labels without loss, and pictures for people."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from dovit.runtime.errors import DovitError
from dovit.runtime.video.read import import_av

MADE_BY = "dovit-run: "  # how the comment of an output begins; the source follows
PICTURE_CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this FFmpeg has


class VideoWriter:
    """Writes frames with the times that they have."""

    def __init__(self, path: Path, *, lossless: bool, time_base: Fraction, rate: Fraction, source: str) -> None:
        """`lossless`: Matroska with FFV1, for labels [H, W] of uint8 or uint16; otherwise MP4 with H.264, for pictures
        [H, W, 3] of uint8. `source` becomes part of the file's comment, which `source_of` reads."""
        self._av = import_av()
        self._path, self._lossless, self._time_base, self._rate = path, lossless, time_base, rate
        options = {} if lossless else {"movflags": "+faststart"}
        self._container = self._av.open(str(path), "w", format="matroska" if lossless else "mp4", options=options)
        self._container.metadata["comment"] = MADE_BY + source
        self._shape: tuple[int, ...] | None = None

    def write(self, values: np.ndarray, pts: int) -> None:
        """Append a frame at `pts`, in units of the time base. Raises DovitError where its size is not the first one's."""
        if self._shape is None:
            self._shape = values.shape
            self._begin(values)
        if values.shape != self._shape:
            before, now = ("×".join(map(str, shape[:2])) for shape in (self._shape, values.shape))
            raise DovitError(f"the frames change their size from {before} to {now}: write labels with --frames")
        frame = self._av.VideoFrame.from_ndarray(self._even(values), format=self._format)
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        try:
            if self._shape is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def _begin(self, values: np.ndarray) -> None:
        if self._lossless:
            codec, self._format = "ffv1", "gray" if values.dtype == np.uint8 else "gray16le"
            options, stored = {"level": "3", "slicecrc": "1"}, self._format
        else:
            codec = next(name for name in PICTURE_CODECS if name in self._av.codec.codecs_available)
            options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
            self._format, stored = "rgb24", "yuv420p"
        stream = self._stream = self._container.add_stream(codec, rate=self._rate, options=options)
        height, width = self._even(values).shape[:2]
        stream.height, stream.width, stream.pix_fmt = height, width, stored
        stream.time_base = stream.codec_context.time_base = self._time_base
        if self._lossless:
            stream.codec_context.color_range = 2  # all values from 0: no reader scales them

    def _even(self, values: np.ndarray) -> np.ndarray:
        """Of pictures, whose colours are stored at half the size, with the last row or column once more."""
        if self._lossless:
            return np.ascontiguousarray(values)
        odd = [(0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)]
        return np.pad(values, odd, mode="edge") if odd[0][1] or odd[1][1] else values


def source_of(path: Path) -> str | None:
    """What a VideoWriter was given as the source of the file at `path`; None where it says nothing, or is no video."""
    av = import_av()
    with suppress(Exception), av.open(str(path)) as container:
        comment = {key.lower(): value for key, value in container.metadata.items()}.get("comment", "")
        return str(comment).removeprefix(MADE_BY) if comment.startswith(MADE_BY) else None
    return None
