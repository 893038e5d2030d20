"""Evaluates settings side by side: every image is run once with every setting, for accuracy and latency."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dovit.evaluation.cost import Macs
from dovit.evaluation.data.dataset import IGNORE, Dataset, Sample
from dovit.evaluation.histogram import LogHistogram
from dovit.evaluation.metrics import Confusion, valid_pixels
from dovit.evaluation.segmenter import Segmenter, Setting
from dovit.runtime.errors import DovitError
from dovit.runtime.result import Result

Track = Callable[[Iterable[int], int], Iterable[int]]  # goes through the images' numbers and shows how far it is
PerImage = Callable[[dict[str, Any]], None]
# the setting's number, the image, what was found, and the MACs of each step of each window
Observe = Callable[[int, Sample, Result, list[list[Macs]]], None]
DENSE = Setting("dense, one graph", ())


@dataclass
class Outcome:
    """The measurements of one setting. Kept tokens and MACs are means over images (slide: summed over an image's windows)."""

    setting: Setting
    tokens: int  # N
    dense_macs: tuple[int, int]
    confusion: Confusion
    images: int = 0
    windows: int = 0
    counts: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0), np.int64)
    )  # [D, N+1]: windows that kept n tokens
    macs: tuple[int, int] = (0, 0)  # summed over all windows
    latency: LogHistogram = field(default_factory=LogHistogram)
    # how many times as fast as `speedup_over` it ran, image by image; None and empty where there was nothing to compare with
    speedup_over: str | None = None
    speedup: LogHistogram = field(default_factory=LogHistogram)

    def add(self, result: Result, labels: np.ndarray, seconds: float, segmenter: Segmenter) -> list[list[Macs]]:
        """Count one image; returns the MACs of each step of each of its windows."""
        self.confusion.add(result.labels, labels)
        self.latency.add(seconds)
        self.images += 1
        costs = []
        for kept in kept_by_window(result):
            for decision, count in enumerate(kept):
                self.counts[decision, count] += 1
            costs.append(segmenter.cost.by_step(kept))
            self.macs = self.macs[0] + sum(c[0] for c in costs[-1]), self.macs[1] + sum(c[1] for c in costs[-1])
            self.windows += 1
        return costs

    @property
    def kept(self) -> tuple[float, ...]:
        """Mean tokens kept after each decision, in a window."""
        numbers = np.arange(self.tokens + 1)
        return tuple((self.counts @ numbers / max(self.windows, 1)).tolist())

    def kept_quantile(self, share: float) -> tuple[int, ...]:
        """That quantile of the tokens kept after each decision."""
        return tuple(int(np.searchsorted(np.cumsum(row), max(share * self.windows, 1))) for row in self.counts)

    @property
    def macs_ratio(self) -> tuple[float, float]:
        """MACs / dense MACs in the paper's count and the true one."""
        paper, true = (m / max(self.windows, 1) / dense for m, dense in zip(self.macs, self.dense_macs, strict=True))
        return paper, true


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    settings: Sequence[Setting],
    *,
    limit: int | None = None,
    ignore: int = IGNORE,
    dense: Segmenter | None = None,
    per_image: PerImage | None = None,
    observe: Observe | None = None,
    track: Track = lambda numbers, total: numbers,
) -> list[Outcome]:
    """Run `dataset`, or its first `limit` images, through `segmenter` at all `settings`.

    Memory does not grow with the number of images: each is read, run, counted and freed. The settings take turns in
    being first, so that none is always the one that finds cold caches, and each has run once before the clock starts.
    `dense`, the same model as one graph without decisions, takes its turn like a setting, and its outcome comes last; speed-ups
    are over it, or else over the first setting that stops no token.
    `per_image` gets one record for each image, `observe` each result, both without `dense`. Raises DovitError naming the image
    that cannot be run or counted.
    """
    _check(segmenter, dataset)
    tokens = segmenter.cost.tokens
    runs = [(segmenter, setting) for setting in settings]
    if dense is not None:
        runs.append((dense, DENSE))
        base: int | None = len(settings)
    else:
        base = next((place for place, setting in enumerate(settings) if setting.stops_nothing), None)
    outcomes = [
        Outcome(
            setting,
            tokens,
            one.cost.dense,
            Confusion(one.classes, ignore),
            counts=np.zeros((one.decisions, tokens + 1), np.int64),
            speedup_over=None if base is None else runs[base][1].name,
        )
        for one, setting in runs
    ]
    total = len(dataset) if limit is None else min(limit, len(dataset))
    _warm_up(runs, dataset[0])
    for number in track(range(total), total):
        sample = dataset[number]
        record: dict[str, Any] = {"name": sample.name, "settings": [None] * len(settings)}
        seconds = [0.0] * len(runs)
        for turn in range(len(runs)):
            place = (number + turn) % len(runs)
            one, setting = runs[place]
            with _named(sample):
                start = time.perf_counter()
                result = one.segment(sample.image, setting)
                seconds[place] = time.perf_counter() - start
                costs = outcomes[place].add(result, sample.labels, seconds[place], one)
            if place == len(settings):
                continue
            if observe is not None:
                observe(place, sample, result, costs)
            if per_image is not None:
                record["settings"][place] = _record(
                    setting, result, costs, sample.labels, seconds[place], tokens, ignore
                )
        if base is not None:
            for outcome, took in zip(outcomes, seconds, strict=True):
                outcome.speedup.add(seconds[base] / took)
        if per_image is not None:
            per_image(record)
    if not any(outcome.confusion.counts.any() for outcome in outcomes):
        logging.getLogger("dovit").warning(
            "no pixel of the %d images is labelled (all are ignored), so there is no PA, mPA or mIoU: check the labels",
            total,
        )
    return outcomes


def _warm_up(runs: Sequence[tuple[Segmenter, Setting]], sample: Sample) -> None:
    for one, setting in runs:
        with _named(sample):
            one.segment(sample.image, setting)


@contextmanager
def _named(sample: Sample) -> Iterator[None]:
    """A DovitError of the block gets the sample's name in front."""
    try:
        yield
    except DovitError as error:
        raise type(error)(f"{sample.name}: {error}") from None


def _check(segmenter: Segmenter, dataset: Dataset) -> None:
    if not len(dataset):
        raise DovitError("the data has no images: nothing to measure")
    if dataset.classes is not None and dataset.classes != segmenter.classes:
        raise DovitError(
            f"the data has {dataset.classes} classes and the model {segmenter.classes}: give data of its own"
        )


def kept_by_window(result: Result) -> list[tuple[int, ...]]:
    """Tokens kept after each decision, window by window; a whole image is one window."""
    return [window.kept for window in result.windows] or [result.kept]


def _record(
    setting: Setting,
    result: Result,
    costs: list[list[Macs]],
    labels: np.ndarray,
    seconds: float,
    tokens: int,
    ignore: int,
) -> dict[str, Any]:
    """As the paper's Figure 6: the tokens that each block runs on, and its MACs (the last are the decoder's)."""
    seen = valid_pixels(labels, ignore)
    blocks = np.sum([(tokens, *kept) for kept in kept_by_window(result)], axis=0)
    macs = np.sum(costs, axis=0)  # [steps, 2]
    return {
        "name": setting.name,
        "tokens": blocks.tolist(),
        "macs_paper": macs[:, 0].tolist(),
        "macs_true": macs[:, 1].tolist(),
        "PA": 100 * float((result.labels == labels)[seen].mean()) if seen.any() else None,
        "latency_ms": 1e3 * seconds,
    }
