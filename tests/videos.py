"""Videos for the tests, by PyAV alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from installed import require

av = require("av")
FRAMES = 12
TIMES = [sum(40 if i % 3 else 90 for i in range(1, n + 1)) for n in range(FRAMES)]  # milliseconds, unevenly apart


def picture(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A smooth picture without symmetry, which moves from frame to frame."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x + 3 * number) * 255 // (width + 3 * FRAMES)]
    return np.stack(planes, axis=2).astype(np.uint8)


def make_video(path: Path, codec: str = "libx264", count: int = FRAMES, **options: str) -> Path:
    """A video with uneven times that begins at half a second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = 500 + TIMES[number % FRAMES], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_labels(path: Path) -> list[np.ndarray]:
    """The label video, by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def close_to(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and float(np.abs(found.astype(int) - expected).mean()) < 6
