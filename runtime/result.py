"""The result of segmenting an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dovit.runtime import draw
from dovit.runtime.errors import UsageError
from dovit.runtime.images import as_rgb
from dovit.runtime.palettes import Colour, default_palette

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 3  # classes that a result's repr lists


@dataclass(frozen=True, repr=False)
class Window:
    """One window of `slide` mode: its top left corner in the (possibly enlarged) image, and its decisions."""

    y: int
    x: int
    kept: tuple[int, ...]  # tokens kept after each decision
    keep_maps: np.ndarray  # [D, h, w] bool
    confidence_maps: np.ndarray  # [D, h, w] float32, NaN where already stopped

    def __repr__(self) -> str:
        return f"Window(y={self.y}, x={self.x}, kept={self.kept})"


@dataclass(frozen=True, repr=False)
class Result:
    """Labels and decisions of one image. In `slide` mode the decisions are those of the windows, see `windows`."""

    labels: np.ndarray  # [H, W] uint8 (int16 with more than 256 classes), at the size of the image given
    kept: tuple[int, ...]  # tokens kept after each decision; slide: summed over the windows
    tokens: int  # N; slide: times the windows
    keep_maps: np.ndarray  # [D, h, w] bool; slide: [windows, D, h, w]
    confidence_maps: np.ndarray  # [D, h, w] float32, NaN where already stopped; slide: [windows, D, h, w]
    logits: np.ndarray | None = None  # [C, h', w'] float32 at the decoder's resolution; slide: merged [C, H, W]
    windows: tuple[Window, ...] = ()
    class_names: tuple[str, ...] | None = None  # of all classes, where the bundle knows them
    palette: tuple[Colour, ...] | None = None  # red, green and blue of all classes, 0…255
    # whole with keep_ratio: the height and width that the image fills of the model's input, which is padded below and to
    # the right; keep_maps, confidence_maps and logits are those of the input as a whole
    filled: tuple[int, int] | None = None

    def overlay(self, image: Any, *, alpha: float = 0.5) -> Image.Image:
        """`image` mixed with the colours of its labels, as a Pillow image. `image`: the one that was segmented, a path,
        a Pillow image or a uint8 RGB array; `alpha`: the share of the colours, within 0…1."""
        pixels = as_rgb(image)
        if pixels.shape[:2] != self.labels.shape:
            sizes = (
                f"{pixels.shape[0]}×{pixels.shape[1]} pixels, the labels {self.labels.shape[0]}×{self.labels.shape[1]}"
            )
            raise UsageError(f"the image has {sizes}: pass the image that was segmented, with labels at its size")
        if not 0 <= alpha <= 1:
            raise UsageError(f"alpha {alpha} lies outside 0…1, the share of the colours")
        return draw.overlay(pixels, self.labels, self._colours(), alpha)

    def save(self, path: str | Path) -> None:
        """Write the labels as an indexed PNG whose pixel values are the class numbers, in the palette's colours; with more
        than 256 classes as 16-bit grey. Raises UsageError for another suffix, DovitError where it cannot be written."""
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"path is a {type(path).__name__}: give the file's name, as a str or a Path")
        if Path(path).suffix.lower() != ".png":
            raise UsageError(f"{path}: labels are written as PNG, which loses none; give a name that ends in .png")
        draw.save_labels(self.labels, self._colours(), Path(path))

    def without_logits(self) -> Result:
        """The same, with the memory of the logits given back."""
        return replace(self, logits=None)

    def _colours(self) -> tuple[Colour, ...]:
        return self.palette or default_palette(int(self.labels.max(initial=0)) + 1)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels.ravel())
        ranked = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
        shares = [f"{self._name(number)} {counts[number] / self.labels.size:.0%}" for number in ranked[:SHOWN]]
        more = f" and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else ""
        kept = f"kept {'/'.join(map(str, self.kept))} of {self.tokens} tokens" if self.kept else f"{self.tokens} tokens"
        size = "×".join(map(str, self.labels.shape))
        windows = f" in {len(self.windows)} windows" if self.windows else ""
        logits = "" if self.logits is None else f", logits {list(self.logits.shape)}"
        return f"Result(labels {size} {self.labels.dtype}: {', '.join(shares)}{more}; {kept}{windows}{logits})"

    def _name(self, number: int) -> str:
        return self.class_names[number] if self.class_names and number < len(self.class_names) else f"class {number}"
