"""What a session says of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Window:
    """One window of `slide` mode: its top left corner in the (possibly enlarged) image, and its own result."""

    y: int
    x: int
    result: Result


@dataclass(frozen=True)
class Result:
    """Labels and decisions of one image. In `slide` mode the decisions are those of the windows, see `windows`."""

    labels: np.ndarray  # [H, W] uint8 (int16 with more than 256 classes), at the size of the image given
    kept: tuple[int, ...]  # tokens kept after each decision; slide: summed over the windows
    tokens: int  # N; slide: times the windows
    keep_maps: np.ndarray  # [D, h, w] bool; slide: [windows, D, h, w]
    confidence_maps: np.ndarray  # [D, h, w] float32, NaN where already stopped; slide: [windows, D, h, w]
    logits: np.ndarray | None = None  # [C, h', w'] float32 at the decoder's resolution; slide: merged [C, H, W]
    windows: tuple[Window, ...] = ()

    def without_logits(self) -> Result:
        """The same, with the memory of the logits given back."""
        windows = tuple(replace(w, result=w.result.without_logits()) for w in self.windows)
        return replace(self, logits=None, windows=windows)
