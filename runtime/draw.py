"""Pictures: labels as indexed PNG, an overlay, the patches still kept, confidences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dovit.runtime.files import atomic_write

if TYPE_CHECKING:
    from dovit.runtime.result import Result

# viridis at five points: dark blue is unsure, yellow is certain
_VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float32)
_STOPPED = np.array([255, 255, 255], np.uint8)


def labels_image(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """labels [H, W] as an indexed image; with more than 256 classes, as 16-bit grey."""
    if labels.dtype != np.uint8:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels).copy()
    image.putpalette([value for colour in palette for value in colour])
    return image


def overlay(image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], alpha: float = 0.5) -> Image.Image:
    """image uint8 [H, W, 3] mixed with the colours of its labels [H, W]."""
    colours = np.asarray(palette, np.float32)[labels.astype(np.int64)]
    return Image.fromarray((image * (1 - alpha) + colours * alpha).round().astype(np.uint8))


def keep_picture(image: np.ndarray, keep_map: np.ndarray) -> Image.Image:
    """image uint8 [H, W, 3] with the patches that stopped painted white, as the paper's Figure 5.

    keep_map bool [h, w]: one value a patch, or one a pixel.
    """
    kept = _spread(keep_map, image.shape[:2])
    return Image.fromarray(np.where(kept[..., None], image, _STOPPED))


def confidence_picture(confidence: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """confidence float32 [h, w], NaN where stopped before: from dark blue (0) to yellow (1), white where stopped."""
    scaled = np.nan_to_num(confidence).clip(0, 1) * (len(_VIRIDIS) - 1)
    low = np.minimum(scaled.astype(np.int64), len(_VIRIDIS) - 2)
    part = (scaled - low)[..., None]
    colours = (_VIRIDIS[low] * (1 - part) + _VIRIDIS[low + 1] * part).round().astype(np.uint8)
    return Image.fromarray(_spread(np.where(np.isnan(confidence)[..., None], _STOPPED, colours), size))


def whole_maps(
    result: Result, size: tuple[int, int], crop: tuple[int, int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each decision the keep map and the confidence map of a picture of `size`, whichever mode made the result.

    In `slide` mode a pixel counts as kept if a window over it keeps it, and has the lowest confidence of its windows.
    """
    if not result.windows:
        if result.filled is None:
            return list(result.keep_maps), list(result.confidence_maps)
        height, width = result.filled  # the rest is padding
        maps = [[_spread(m, crop)[:height, :width] for m in of] for of in (result.keep_maps, result.confidence_maps)]
        return [_spread(m, size) for m in maps[0]], [_spread(m, size) for m in maps[1]]
    height = max(window.y for window in result.windows) + crop[0]
    width = max(window.x for window in result.windows) + crop[1]
    count = len(result.kept)
    keeps = np.zeros((count, height, width), bool)
    confidences = np.full((count, height, width), np.nan, np.float32)
    for window in result.windows:
        where = np.s_[:, window.y : window.y + crop[0], window.x : window.x + crop[1]]
        keeps[where] |= np.stack([_spread(m, crop) for m in window.keep_maps]) if count else False
        if count:
            found = np.stack([_spread(m, crop) for m in window.confidence_maps])
            confidences[where] = np.fmin(confidences[where], found)
    return [_spread(m, size) for m in keeps], [_spread(m, size) for m in confidences]


@contextmanager
def saving(
    image: Image.Image, path: Path, source: str | None = None, more_text: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Write a PNG whole or not at all: it takes its place when the block ends without an exception. `source` becomes its text
    `Source`, which `source_of` reads, `more_text` further ones.

    Raises DovitError where the disk is full or the folder is not to be written.
    """
    text = PngInfo()
    if source is not None:
        text.add_text("Source", source)
    for key, value in (more_text or {}).items():
        text.add_text(key, value)
    with atomic_write(path) as part:
        image.save(part, "PNG", pnginfo=text)
        yield


def save(image: Image.Image, path: Path, source: str | None = None, more_text: Mapping[str, str] | None = None) -> None:
    """Write a PNG whole or not at all: see `saving`."""
    with saving(image, path, source, more_text):
        pass


def source_of(path: Path) -> str | None:
    """What `save` was given as the source of the PNG at `path`; None where it says nothing, or is no image."""
    return text_of(path).get("Source")


def text_of(path: Path) -> dict[str, str]:
    """The texts of the PNG at `path`; none where there is no such image."""
    with suppress(Exception), Image.open(path) as image:
        return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    return {}


def save_labels(
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    path: Path,
    source: str | None = None,
    more_text: Mapping[str, str] | None = None,
) -> None:
    """labels [H, W] as an indexed PNG whose pixel values are the class numbers; `source`, `more_text`: see `save`."""
    save(labels_image(labels, palette), path, source, more_text)


def _spread(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, …] → [H, W, …], each value over the pixels of its patch."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return values[rows[:, None], columns[None]]
