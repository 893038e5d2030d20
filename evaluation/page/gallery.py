"""Chooses the images that a report shows: those with the most and the fewest tokens, and the worst ones."""

from __future__ import annotations

import base64
import heapq
import io
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from dovit.evaluation.cost import Cost, Macs
from dovit.evaluation.data.dataset import IGNORE, Sample
from dovit.evaluation.evaluate import kept_by_window
from dovit.evaluation.metrics import valid_pixels
from dovit.runtime import draw
from dovit.runtime.errors import printable
from dovit.runtime.palettes import Colour
from dovit.runtime.result import Result

SHOWN = 3  # images of each kind
WIDTH = 384  # pixels of a picture at most
_WRONG, _IGNORED = np.array([214, 39, 40], np.uint8), np.array([0, 0, 0], np.uint8)


@dataclass(frozen=True)
class Picture:
    """A picture as the address of an HTML image that holds its data, and what it shows."""

    caption: str
    address: str


@dataclass(frozen=True)
class Entry:
    """One image of the report. `tokens` and `macs` are summed over its windows."""

    name: str
    accuracy: float  # per cent of the labelled pixels; NaN where none is labelled
    share: float  # tokens kept after the decisions on average, as a share of all tokens
    tokens: tuple[int, ...]  # that each block runs on
    dense_tokens: int
    macs: tuple[Macs, ...]  # of each step: the blocks and the decoder
    pictures: tuple[Picture, ...]


@dataclass
class _Best:
    """The SHOWN entries of largest rank, the first of equal ones first."""

    heap: list[tuple[float, int, Entry]] = field(default_factory=list)

    def takes(self, rank: float) -> bool:
        return len(self.heap) < SHOWN or rank > self.heap[0][0]

    def add(self, rank: float, number: int, entry: Entry) -> None:
        heapq.heappush(self.heap, (rank, -number, entry))
        if len(self.heap) > SHOWN:
            heapq.heappop(self.heap)

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, _, entry in sorted(self.heap, key=lambda item: item[:2], reverse=True)]


class Gallery:
    """The chosen images of one setting, and the mean tokens and MACs of each block. Its size does not grow with the data."""

    def __init__(self, cost: Cost, palette: tuple[Colour, ...], window: tuple[int, int], ignore: int = IGNORE) -> None:
        """`window`: the height and width of the model's input."""
        self._cost, self._palette, self._window, self._ignore = cost, palette, window, ignore
        self._fewest, self._most, self._worst = _Best(), _Best(), _Best()
        self._images = self._windows = 0
        self._tokens: np.ndarray = np.zeros(0, np.int64)  # [D+1], summed over all windows
        self._macs: np.ndarray = np.zeros((0, 2), np.int64)  # [steps, 2]

    def add(self, sample: Sample, result: Result, costs: list[list[Macs]]) -> None:
        """Look at one image."""
        all_tokens = self._cost.tokens
        tokens = np.sum([(all_tokens, *kept) for kept in kept_by_window(result)], axis=0)  # [D+1]
        macs = np.sum(costs, axis=0)  # [steps, 2]
        if not self._images:
            self._tokens, self._macs = np.zeros_like(tokens), np.zeros_like(macs)
        self._tokens += tokens
        self._macs += macs
        number, self._images, self._windows = self._images, self._images + 1, self._windows + len(costs)
        share = float(tokens[1:].mean() / tokens[0]) if len(tokens) > 1 else 1.0
        seen = valid_pixels(sample.labels, self._ignore)
        right = (result.labels == sample.labels)[seen]
        accuracy = 100 * float(right.mean()) if right.size else math.nan
        ranks = [(self._fewest, -share), (self._most, share)] if len(tokens) > 1 else []
        if right.size:
            ranks.append((self._worst, -accuracy))
        for best, rank in ranks:
            if best.takes(rank):
                pictures = self._truth(sample, result) if best is self._worst else self._kept(sample, result)
                macs_by_step = tuple((int(paper), int(true)) for paper, true in macs)
                shown = printable(sample.name)
                entry = Entry(
                    shown, accuracy, share, tuple(map(int, tokens)), int(tokens[0]), macs_by_step, tuple(pictures)
                )
                best.add(rank, number, entry)

    @property
    def fewest(self) -> list[Entry]:
        """Images with the fewest tokens, the fewest first."""
        return self._fewest.entries

    @property
    def most(self) -> list[Entry]:
        """Images with the most tokens, the most first."""
        return self._most.entries

    @property
    def worst(self) -> list[Entry]:
        """Images of the lowest pixel accuracy, the lowest first."""
        return self._worst.entries

    @property
    def mean_tokens(self) -> list[float]:
        """Tokens that each block runs on, in a window on average."""
        return (self._tokens / max(self._windows, 1)).tolist()

    @property
    def mean_macs(self) -> list[tuple[float, float]]:
        """MACs of each step in a window on average, in the paper's count and the true one."""
        return [(float(paper), float(true)) for paper, true in self._macs / max(self._windows, 1)]

    def _kept(self, sample: Sample, result: Result) -> list[Picture]:
        height, width = sample.image.shape[:2]
        keeps, _ = draw.whole_maps(result, (height, width), self._window)
        return [
            Picture("image", _jpeg(sample.image)),
            Picture("labels", self._labels(result.labels)),
            *(
                Picture(f"kept after decision {number}", _jpeg(np.asarray(draw.keep_picture(sample.image, keep))))
                for number, keep in enumerate(keeps, start=1)
            ),
        ]

    def _truth(self, sample: Sample, result: Result) -> list[Picture]:
        seen = valid_pixels(sample.labels, self._ignore)
        wrong = seen & (result.labels != sample.labels)
        grey = np.repeat(sample.image.mean(axis=2, keepdims=True) / 2 + 96, 3, axis=2).astype(np.uint8)
        return [
            Picture("image", _jpeg(sample.image)),
            Picture("truth", self._labels(sample.labels, seen)),
            Picture("labels", self._labels(result.labels)),
            Picture("wrong pixels", _jpeg(np.where(wrong[..., None], _WRONG, grey))),
        ]

    def _labels(self, labels: np.ndarray, seen: np.ndarray | None = None) -> str:
        """Labels in their colours; black where a pixel does not count."""
        colours = np.asarray(self._palette, np.uint8)
        known = labels < len(colours)
        picture = np.where(known[..., None], colours[np.where(known, labels, 0)], _IGNORED)
        if seen is not None:
            picture = np.where(seen[..., None], picture, _IGNORED)
        small = _thumbnail(picture, Image.Resampling.NEAREST).quantize(256, dither=Image.Dither.NONE)
        return _address(small, "PNG", optimize=True)


def _jpeg(picture: np.ndarray) -> str:
    return _address(_thumbnail(picture, Image.Resampling.BOX), "JPEG", quality=82)


def _thumbnail(picture: np.ndarray, how: Image.Resampling) -> Image.Image:
    image = Image.fromarray(picture)
    if image.width <= WIDTH:
        return image
    return image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), how)


def _address(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
