"""Calibration: finds the thresholds and capacities for a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dovit.evaluation.calibration.capacities import check_buckets, cross_validated_fill, fit_capacities, mean_fill
from dovit.evaluation.calibration.observe import Observer
from dovit.evaluation.calibration.point import Count, Point
from dovit.evaluation.calibration.thresholds import check_keep, fit_disagreement, fit_keep, fit_macs, measure_curve
from dovit.runtime.errors import DovitError, UsageError

FEWEST_POINTS = 3  # of a curve that a search starts from: both ends and something between


@dataclass(frozen=True)
class Target:
    """The target of a calibration: exactly one of the first three fields is set."""

    keep: tuple[float, ...] | None = None  # shares of all N tokens after each decision
    macs: float | None = None  # mean MACs / dense MACs
    max_disagreement: float | None = None  # share of pixels
    count: Count = "paper"  # which MACs
    per_decision: bool = False  # max_disagreement: let ξ differ between decisions

    def check_choice(self) -> None:
        """Raises UsageError unless there is exactly one target."""
        if [self.keep, self.macs, self.max_disagreement].count(None) != 2:
            raise UsageError("give exactly one target: --keep, --macs or --max-disagreement")
        if self.per_decision and self.max_disagreement is None:
            raise UsageError("--per-decision goes with --max-disagreement; --keep has one ξ a decision anyway")

    def check(self, decisions: int) -> None:
        """Raises UsageError where it can be seen without an image that the target is wrong for so many decisions."""
        self.check_choice()
        if not decisions:
            raise DovitError("the bundle has no decisions, so there is nothing to calibrate")
        if self.keep is not None:
            check_keep(self.keep, decisions)

    def as_json(self) -> dict[str, Any]:
        """The target that was given, and the count where it matters."""
        if self.keep is not None:
            return {"keep": list(self.keep)}
        if self.macs is not None:
            return {"macs": self.macs, "macs_count": self.count}
        return {"max_disagreement": self.max_disagreement, "macs_count": self.count, "per_decision": self.per_decision}


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration, which is not yet written to the bundle."""

    before: Point  # at the bundle's ξ
    after: Point  # at the ξ found
    capacities_before: tuple[int, ...]
    capacities: tuple[int, ...]
    fill_before: float  # mean fill of a decision at the ξ found, with the old capacities
    fill: float  # and with the new
    fill_unseen: float | None  # what to expect of the new on other images, by cross-validation; None for one image
    curve: tuple[Point, ...]  # one ξ for all decisions, ascending
    notes: tuple[str, ...]  # what was not reached, and why

    def as_json(self) -> dict[str, Any]:
        """Numbers for machines."""
        return {
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "capacities": {
                "before": list(self.capacities_before),
                "after": list(self.capacities),
                "mean_fill_before": self.fill_before,
                "mean_fill_after": self.fill,
                "mean_fill_unseen": self.fill_unseen,
            },
            "curve": [point.as_json() for point in self.curve],
            "notes": list(self.notes),
        }


def calibrate(
    observer: Observer, target: Target, *, points: int = 9, buckets: int | None = None, round_to: int = 1
) -> Calibration:
    """Find ξ for `target` and capacities for what these ξ keep.

    `points`: how many ξ the curve has (0 with target.keep: none); `buckets`: how many capacities, default as many as
    the bundle has. Raises UsageError for an unsuitable argument, DovitError for a target that cannot be reached.
    """
    manifest = observer.manifest
    target.check(len(manifest.decisions))
    most = len(manifest.capacities) if buckets is None else buckets
    check_buckets(most, round_to)  # before hours of work rather than after
    searched = max(points, FEWEST_POINTS)
    if target.keep is not None:
        after, notes = fit_keep(observer, target.keep)
        if points:
            measure_curve(observer, searched)
    elif target.macs is not None:
        after, notes = fit_macs(observer, target.macs, target.count, searched)
    else:
        assert target.max_disagreement is not None
        after, notes = fit_disagreement(observer, target.max_disagreement, target.count, searched, target.per_decision)
    before = observer.measure([manifest.thresholds])[0]
    counts = after.counts.sum(axis=0)  # one list of capacities serves all decisions
    capacities = fit_capacities(counts, most, round_to)
    old = mean_fill(counts, manifest.capacities)
    unseen = cross_validated_fill(after.counts, most, round_to)
    if unseen is None or (unseen > old and most >= len(manifest.capacities)):
        notes.append(
            f"too few images for {len(capacities)} capacities: on other images they may fill up more than the old ones; "
            "give more images, or fewer --buckets"
        )
    curve = tuple(observer.curve()) if points else ()
    return Calibration(
        before, after, manifest.capacities, capacities, old, mean_fill(counts, capacities), unseen, curve, tuple(notes)
    )
