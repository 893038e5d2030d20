"""`slide` mode: mmsegmentation's sliding-window inference.

Labels are computed for a band of rows at a time. Only the logits of the windows that cover a row are in memory, at the decoder's
resolution, with a few rows of merged logits; the merged logits of the whole image only if the caller asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dovit.runtime.errors import UsageError
from dovit.runtime.resize import Taps, argmax_labels, label_dtype, resize_image, resize_rows, taps
from dovit.runtime.result import Result, Window
from dovit.runtime.whole import Core

# `runtime/cpp/session/slide.cpp` has the same limits and sentences
MAX_PIXELS = 1 << 24  # of an enlarged image: 4096×4096
MAX_WINDOWS = 4096
MAX_LOGITS = 1 << 30  # held at a time: 4 GiB
BAND_BYTES = 1 << 24  # of merged logits under way at a time

Size = tuple[int, int]


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Start positions of the windows along one dimension: every `stride`, the last one moved back to end at the border."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(k * stride, length - crop), 0) for k in range(count)]


def segment_slide(
    image: np.ndarray, size: Size, stride: Size, core: Core, *, keep_logits: bool = False, own_size: bool = True
) -> Result:
    """Segment `image` uint8 [H, W, 3]: logits of all windows are upsampled, summed and divided by how many lie there.

    An image smaller than the window is first enlarged, keeping its proportions, until the window fits; mmsegmentation
    would run its model at the smaller size instead. Labels come at the image's size, or without `own_size` at the size
    that it was enlarged to. `keep_logits`: also the merged ones, [C, H, W]. Raises UsageError, before anything is
    computed where it can, for an image that needs more windows, pixels or logits than the limits above.
    """
    original = (image.shape[0], image.shape[1])
    scaled = enlarged_size(original, size)
    down, across = window_starts(scaled[0], size[0], stride[0]), window_starts(scaled[1], size[1], stride[1])
    if len(down) * len(across) > MAX_WINDOWS:
        raise UsageError(
            f"an image of {_format_size(original)} needs {len(down) * len(across)} windows of {_format_size(size)}, more than "
            f"{MAX_WINDOWS}; use mode whole, or cut the image into parts"
        )
    merge = _WindowMerger(resize_image(image, scaled), original, size, (down, across), core)
    labels: np.ndarray | None = None
    logits: np.ndarray | None = None
    writer: _LabelResampler | None = None
    for top, band in merge.bands():  # [C, rows, W]
        if labels is None:
            target = original if own_size else scaled
            labels = np.empty(target, label_dtype(len(band)))
            writer = None if target == scaled else _LabelResampler(scaled, target, labels)
            logits = _allocate_logits(original, len(band), scaled) if keep_logits else None
        if logits is not None:
            logits[:, top : top + band.shape[1]] = band
        if writer:
            writer.add(top, band)
        else:
            labels[top : top + band.shape[1]] = argmax_labels(band)
    assert labels is not None
    windows = tuple(merge.windows)
    return Result(
        labels=labels,
        kept=tuple(sum(counts) for counts in zip(*(w.kept for w in windows), strict=True)),
        tokens=merge.tokens,
        keep_maps=np.stack([w.keep_maps for w in windows]),
        confidence_maps=np.stack([w.confidence_maps for w in windows]),
        logits=logits,
        windows=windows,
    )


class _WindowMerger:
    """Yields the merged logits of an image from top to bottom; a window is run when its first row is reached."""

    def __init__(
        self, image: np.ndarray, original: Size, size: Size, begins: tuple[list[int], list[int]], core: Core
    ) -> None:
        """`image`, perhaps enlarged from `original`; `begins`: the windows' first rows and columns."""
        self.windows: list[Window] = []
        self.tokens = 0
        self._image, self._original, self._size, self._core = image, original, size, core
        self._down, self._across = begins
        self._columns = np.zeros(image.shape[1], np.float32)  # windows that cover each column
        for x in self._across:
            self._columns[x : x + size[1]] += 1

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """First row and logits [C, rows, W], all rows of a band covered by the same windows."""
        height, crop = self._image.shape[0], self._size[0]
        edges = sorted({0, height, *self._down, *(y + crop for y in self._down)})
        covering: dict[int, list[np.ndarray]] = {}  # first row of windows → their logits [C, h', w']
        for top, bottom in pairwise(edges):
            covering = {y: logits for y, logits in covering.items() if y + crop > top}
            if top in self._down:
                covering[top] = self._run(top)
            classes, low_height, low_width = next(iter(covering.values()))[0].shape
            rows = max(1, BAND_BYTES // (4 * classes * self._image.shape[1]))
            vertical, horizontal = taps(low_height, crop), taps(low_width, self._size[1])
            for first in range(top, bottom, rows):
                yield first, self._band(first, min(first + rows, bottom), covering, vertical, horizontal)

    def _band(
        self, first: int, last: int, covering: dict[int, list[np.ndarray]], down: Taps, across: Taps
    ) -> np.ndarray:
        classes = len(next(iter(covering.values()))[0])
        total = np.zeros((classes, last - first, self._image.shape[1]), np.float32)
        for y, row in covering.items():
            for x, logits in zip(self._across, row, strict=True):
                total[:, :, x : x + self._size[1]] += resize_rows(logits, down[first - y : last - y], across)
        total /= len(covering) * self._columns
        return total

    def _run(self, y: int) -> list[np.ndarray]:
        row: list[np.ndarray] = []
        for x in self._across:
            window = self._image[y : y + self._size[0], x : x + self._size[1]]
            result = self._core(np.ascontiguousarray(window))
            assert result.logits is not None
            if not self.windows:
                self._check_memory(result.logits.shape)
            row.append(result.logits)
            self.windows.append(Window(y, x, result.kept, result.keep_maps, result.confidence_maps))
            self.tokens += result.tokens
        return row

    def _check_memory(self, shape: Sequence[int]) -> None:
        held = _max_overlap(self._down, self._size[0]) * len(self._across)
        each = math.prod(shape)
        if each * held > MAX_LOGITS:
            raise UsageError(
                f"an image of {_format_size(self._original)} needs the logits of {held} windows at a time, {shape[0]} classes of "
                f"{each // shape[0]} each, more than {MAX_LOGITS} values; use mode whole, or cut the image into parts"
            )


@dataclass
class _LabelResampler:
    """Computes labels at another size than the merged logits, row by row as the logits arrive."""

    source: Size
    target: Size
    labels: np.ndarray

    def __post_init__(self) -> None:
        self._down, self._across = taps(self.source[0], self.target[0]), taps(self.source[1], self.target[1])
        self._held = np.zeros((0, 0, 0), np.float32)
        self._done = 0

    def add(self, top: int, band: np.ndarray) -> None:
        """Rows [C, rows, W] from row `top` on, which follow those before."""
        if top:  # the last row before may be needed once more
            band, top = np.concatenate([self._held, band], axis=1), top - 1
        self._held = band[:, -1:]
        end = int(np.searchsorted(self._down.high, top + band.shape[1]))  # rows of labels that need none below
        if end > self._done:
            some = self._down[self._done : end]
            near = Taps(some.low - top, some.high - top, some.low_weight, some.high_weight)
            self.labels[self._done : end] = argmax_labels(resize_rows(band, near, self._across))
            self._done = end


def _allocate_logits(original: Size, classes: int, size: Size) -> np.ndarray:
    if math.prod(size) * classes > MAX_LOGITS:
        raise UsageError(
            f"the logits of an image of {_format_size(original)} with {classes} classes are {math.prod(size) * classes} values, "
            f"more than {MAX_LOGITS}; leave return_logits off, or cut the image into parts"
        )
    return np.empty((classes, *size), np.float32)


def enlarged_size(original: Size, size: Size) -> Size:
    """The size at which the window fits."""
    scale = max(1.0, size[0] / original[0], size[1] / original[1])
    if scale == 1:
        return original
    scaled = (max(size[0], math.floor(original[0] * scale + 0.5)), max(size[1], math.floor(original[1] * scale + 0.5)))
    if math.prod(scaled) > MAX_PIXELS:
        raise UsageError(
            f"an image of {_format_size(original)} is too narrow for windows of {_format_size(size)}: enlarged until they fit, "
            f"it has {math.prod(scaled)} pixels, more than {MAX_PIXELS}; use mode whole"
        )
    return scaled


def _max_overlap(begins: Sequence[int], crop: int) -> int:
    """How many windows of one dimension cover a position at most."""
    return max(sum(begin <= last < begin + crop for begin in begins) for last in begins)


def _format_size(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
