"""Bilinear resizing of logits as torch does it with align_corners=False, and labels from the resized logits.

Elementwise numpy operations on a few rows at a time: a matrix product would start the threads of numpy's BLAS, which compete
with those of ONNX Runtime for the cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

BAND_BYTES = 1 << 22  # of upsampled logits in memory at a time
# a class whose logit is larger by this share of the largest one stays the largest after interpolation, despite rounding
ROUNDING = 1e-6


@dataclass(frozen=True)
class Taps:
    """The two source positions that each of T output positions lies between, and their weights."""

    low: np.ndarray  # [T] int64, rising
    high: np.ndarray  # [T] int64
    low_weight: np.ndarray  # [T] float32
    high_weight: np.ndarray  # [T] float32

    def __getitem__(self, part: slice | np.ndarray) -> Taps:
        """Those of some output positions."""
        return Taps(self.low[part], self.high[part], self.low_weight[part], self.high_weight[part])


def taps(source: int, target: int) -> Taps:
    """From `source` to `target` positions."""
    # in float32 as torch, whose rounding of the positions shows in the weights of large images
    scale = np.float32(source) / np.float32(target)
    at = np.maximum(scale * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(at.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    part = np.clip(at - low, 0, 1).astype(np.float32)
    border = low == high  # both weights fall on the last value
    return Taps(low, high, np.where(border, (1 - part) + part, 1 - part), np.where(border, np.float32(0), part))


def resize_bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [..., h, w] → [..., H, W]; no antialiasing."""
    if x.shape[-2:] == tuple(size):
        return x
    return resize_rows(x, taps(x.shape[-2], size[0]), taps(x.shape[-1], size[1]))


def resize_rows(x: np.ndarray, down: Taps, across: Taps) -> np.ndarray:
    """float32 [..., h, w] → [..., rows of `down`, columns of `across`]; reads those rows of `x` that these need."""
    first, last = int(down.low[0]), int(down.high[-1]) + 1
    wide = _interpolate(x[..., first:last, :], across, -1)  # [..., s, W]
    return _interpolate(wide, Taps(down.low - first, down.high - first, down.low_weight, down.high_weight), -2)


def label_dtype(classes: int) -> np.dtype:
    """Of label maps."""
    return np.dtype(np.uint8 if classes <= 256 else np.int16)


def labels_from_logits(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """logits float32 [C, h, w] → labels [H, W], uint8 (int16 with more than 256 classes), the lowest class on a tie.

    Equal to the argmax of `resize_bilinear(logits, size)`, whose values are made only where they are needed: between
    four positions that all have the same largest class, every pixel has it too. Memory stays near BAND_BYTES.
    """
    if logits.shape[1:] == tuple(size):
        return argmax_labels(logits)
    labels = np.empty(size, label_dtype(len(logits)))
    down, across = taps(logits.shape[1], size[0]), taps(logits.shape[2], size[1])
    # output rows that lie between the same two source rows
    starts = np.flatnonzero(np.diff(down.low, prepend=-1))
    for top, bottom in zip(starts, [*starts[1:], size[0]], strict=True):
        pair = logits[:, [down.low[top], down.high[top]]]  # [C, 2, w]
        with np.errstate(invalid="ignore"):  # infinite logits
            _label_rows(pair, down[top:bottom], across, labels[top:bottom])
    return labels


def argmax_labels(logits: np.ndarray) -> np.ndarray:
    """logits float32 [C, h, w] → labels [h, w]: the first class of those with the largest logit; NaN is none but in class 0."""
    labels = np.zeros(logits.shape[1:], label_dtype(len(logits)))
    rows = max(1, BAND_BYTES // (16 * max(1, logits.shape[2])))
    for top in range(0, labels.shape[0], rows):
        part = np.s_[top : top + rows]
        best, found = logits[0, part].copy(), labels[part]
        for number in range(1, len(logits)):
            larger = logits[number, part] > best
            np.copyto(best, logits[number, part], where=larger)
            np.copyto(found, number, where=larger)
    return labels


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] → [h, w, 3], bilinear by Pillow, which averages where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _interpolate(x: np.ndarray, along: Taps, axis: int) -> np.ndarray:
    """Each output position from its two source positions along `axis`, -1 or -2."""
    shape = (-1, 1) if axis == -2 else (-1,)
    mixed = np.take(x, along.low, axis=axis)
    mixed *= along.low_weight.reshape(shape)
    other = np.take(x, along.high, axis=axis)
    other *= along.high_weight.reshape(shape)
    mixed += other
    return mixed


def _label_rows(pair: np.ndarray, down: Taps, across: Taps, labels: np.ndarray) -> None:
    """Fill labels [R, W] of the rows between two source rows, `pair` float32 [C, 2, w]."""
    leading = pair.argmax(axis=0)  # [2, w]
    lead = np.take_along_axis(pair, leading[None], axis=0)[0]
    others = pair.copy()
    np.put_along_axis(others, leading[None], -np.inf, axis=0)
    margin = np.float32(ROUNDING) * np.abs(pair).max()
    clear = lead - others.max(axis=0) > margin  # [2, w]; infinite ones never are
    right = np.minimum(np.arange(pair.shape[2]) + 1, pair.shape[2] - 1)
    # [w]: cells, each from a source column to the one to its right
    same = (leading[0] == leading[1]) & (leading[0] == leading[0, right]) & (leading[0] == leading[1, right])
    uniform = clear.all(axis=0)
    uniform &= uniform[right] & same
    labels[:] = leading[0].astype(labels.dtype)[across.low]
    columns = np.flatnonzero(~uniform[across.low])
    if not columns.size:
        return
    # classes that can be the largest somewhere in these cells: some class is nowhere below the others' lowest corner
    least, most = pair.min(axis=1), pair.max(axis=1)  # [C, w]
    least, most = np.minimum(least, least[:, right]), np.maximum(most, most[:, right])
    possible = ~(most < least.max(axis=0) - margin)  # [C, w]
    classes = np.flatnonzero(possible[:, ~uniform].any(axis=1))
    step = max(1, BAND_BYTES // (16 * len(labels)))
    for start in range(0, columns.size, step):
        some = columns[start : start + step]
        labels[:, some] = _argmax_of_interpolated(pair[classes], classes, down, across[some], labels.dtype)


def _argmax_of_interpolated(
    pair: np.ndarray, classes: np.ndarray, down: Taps, across: Taps, dtype: np.dtype
) -> np.ndarray:
    """[R, W]: the number of the class with the largest of the interpolated logits; pair [K, 2, w], `classes` its numbers."""
    wide = _interpolate(pair, across, -1)  # [K, 2, W]
    low, high = down.low_weight[:, None], down.high_weight[:, None]
    found = np.full((low.size, wide.shape[2]), classes[0], dtype)
    best = wide[0, 0] * low + wide[0, 1] * high
    value, other, larger = np.empty_like(best), np.empty_like(best), np.empty(best.shape, bool)
    for number, (first, second) in zip(classes[1:], wide[1:], strict=True):
        np.multiply(first, low, out=value)
        np.multiply(second, high, out=other)
        value += other
        np.greater(value, best, out=larger)
        np.copyto(found, number, where=larger, casting="unsafe")
        np.copyto(best, value, where=larger)
    return found
