"""The interface of what can be evaluated, and its implementation for a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dovit.evaluation.cost import Cost
from dovit.runtime.bundle.manifest import Mode, Schedule
from dovit.runtime.result import Result
from dovit.runtime.session import Session


def join_thresholds(thresholds: tuple[float, ...]) -> str:
    """0.98 where every decision has this ξ, otherwise all of them, as 0.9/0.95/0.98."""
    return "/".join(f"{xi:g}" for xi in (thresholds[:1] if len(set(thresholds)) == 1 else thresholds))


@dataclass(frozen=True)
class Setting:
    """How tokens are passed: ξ of each decision, or so many tokens kept in every image."""

    name: str
    thresholds: tuple[float, ...]
    counts: tuple[int, ...] | None = None

    @classmethod
    def of(cls, thresholds: tuple[float, ...]) -> Setting:
        """ξ of each decision, named by it: once where it is the same at all; "dense" where there is no decision."""
        return cls(f"ξ = {join_thresholds(thresholds)}" if thresholds else "dense", thresholds)

    @property
    def stops_nothing(self) -> bool:
        """Whether ξ = 1 keeps every token of every image."""
        return self.counts is None and all(threshold >= 1 for threshold in self.thresholds)


class Segmenter(Protocol):
    """Segments images at any setting, and knows what that costs."""

    @property
    def cost(self) -> Cost:
        """MACs by kept tokens."""

    @property
    def classes(self) -> int:
        """How many."""

    @property
    def decisions(self) -> int:
        """D."""

    @property
    def least_kept(self) -> int:
        """How many tokens every decision keeps at least."""

    def segment(self, image: np.ndarray, setting: Setting) -> Result:
        """Segment uint8 [H, W, 3] of any size; labels are [H, W]."""


class BundleSegmenter:
    """A session with its schedule and its mode, by default the bundle's."""

    def __init__(self, session: Session, mode: Mode | None = None, schedule: Schedule = "exact") -> None:
        self._session, self._mode, self._schedule = session, mode, schedule
        self.cost = Cost.of_bundle(session.manifest)
        self.classes = session.manifest.classes
        self.decisions = len(session.manifest.decisions)
        self.least_kept = session.manifest.least_kept

    def segment(self, image: np.ndarray, setting: Setting) -> Result:
        """As Segmenter has it."""
        threshold = setting.thresholds if setting.counts is None else None
        return self._session(
            image, mode=self._mode, threshold=threshold, schedule=self._schedule, counts=setting.counts
        )
