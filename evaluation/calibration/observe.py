"""Measures confidences, kept tokens, cost and label agreement of images at given thresholds, one image in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dovit.evaluation.calibration.confidences import Confidences
from dovit.evaluation.calibration.point import Point, PointAccumulator
from dovit.runtime.bundle.manifest import Manifest, Mode
from dovit.runtime.errors import DovitError
from dovit.runtime.images import read_image
from dovit.runtime.result import Result, Window
from dovit.runtime.session import Session

Track = Callable[[Sequence[Path], str], Iterable[Path]]  # goes through the files and shows how far it is
Settings = Sequence[tuple[float, ...]]


def _no_progress(files: Sequence[Path], what: str) -> Iterable[Path]:
    return files


class Observer:
    """Runs the images once for each set of thresholds, and caches the measurements.

    A `window` is one pass of the model: an image in mode whole, one of its windows in mode slide.
    """

    def __init__(
        self, session: Session, files: Sequence[Path], mode: Mode = "whole", track: Track = _no_progress
    ) -> None:
        self.session = session
        self.files = files
        self.mode = mode
        self.points: dict[tuple[float, ...], Point] = {}  # everything that was measured, by ξ
        self._track = track
        self._spread: Confidences | None = None

    @property
    def manifest(self) -> Manifest:
        """The bundle's."""
        return self.session.manifest

    @property
    def dense(self) -> tuple[float, ...]:
        """The ξ that stop nothing: what disagreement is measured against."""
        return (1.0,) * len(self.manifest.decisions)

    def common(self, threshold: float) -> tuple[float, ...]:
        """One ξ for all decisions."""
        return (threshold,) * len(self.manifest.decisions)

    def confidences(self, earlier: Sequence[float]) -> tuple[Confidences, int]:
        """What decision `len(earlier)` (from 0) sees with `earlier` ξ before it, pooled; and the number of windows."""
        number, seen, windows = len(earlier), Confidences(), 0
        # what comes after cannot change this decision: ξ = 0 stops everything there, and the later blocks are not run
        thresholds = (*earlier, *[0.0] * (len(self.manifest.decisions) - number))
        for results in self._run([thresholds], f"decision {number + 1}"):
            for part in parts(results[0]):
                windows += 1
                seen.add(confidence(part, number))
        return seen, windows

    def spread(self) -> Confidences:
        """All decisions' confidences where nothing stops, pooled: the scale on which a common ξ is looked for."""
        if self._spread is None:
            seen, tally = Confidences(), PointAccumulator(self.manifest, self.dense)
            for results in self._run([self.dense], "the dense model"):
                tally.add(results[0], results[0])
                for part in parts(results[0]):
                    for number in range(len(self.manifest.decisions)):
                        seen.add(confidence(part, number))
            self.points[self.dense] = tally.point()
            self._spread = seen
        return self._spread

    def measure(self, settings: Settings) -> list[Point]:
        """What each of `settings` keeps, costs and changes; one pass over the images for those not measured yet."""
        new = [s for s in dict.fromkeys(settings) if s not in self.points]
        if new:
            tallies = [PointAccumulator(self.manifest, setting) for setting in new]
            # the dense labels are made again in every pass: keeping them would need memory for every image
            plural = "s" * (len(new) != 1)
            for dense, *others in self._run([self.dense, *new], f"{len(new)} setting{plural} of ξ"):
                for tally, result in zip(tallies, others, strict=True):
                    tally.add(result, dense)
            self.points |= {tally.thresholds: tally.point() for tally in tallies}
        return [self.points[setting] for setting in settings]

    def curve(self) -> list[Point]:
        """What was measured with one ξ for all decisions, the smallest first."""
        return sorted((p for s, p in self.points.items() if len(set(s)) == 1), key=lambda p: p.thresholds)

    def _run(self, settings: Settings, what: str) -> Iterator[list[Result]]:
        """Each image's results, one for each setting. Raises DovitError with the image's name."""
        for file in self._track(self.files, what):
            image = read_image(file)
            try:
                yield [self.session(image, mode=self.mode, threshold=setting) for setting in settings]
            except DovitError as error:
                raise type(error)(f"{file}: {error}") from None


def parts(result: Result) -> Sequence[Result | Window]:
    """The windows of a result: itself in mode whole."""
    return list(result.windows) or [result]


def confidence(window: Result | Window, number: int) -> np.ndarray:
    """[M] float32: what decision `number` (from 0) said of the tokens that had come so far; a NaN is one it computed."""
    seen = window.confidence_maps[number]
    return seen[window.keep_maps[number - 1]] if number else seen.ravel()
