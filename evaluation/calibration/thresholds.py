"""ξ for each of the three targets: a share of tokens, a share of the cost, a share of changed labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

import numpy as np

from dovit.evaluation.calibration.confidences import shortest
from dovit.evaluation.calibration.observe import Observer
from dovit.evaluation.calibration.point import Count, Point
from dovit.runtime.errors import DovitError, UsageError

TOLERANCE = 0.005  # half a point: of all tokens, or of the dense model's MACs
ROUNDS = 6  # of a search, each one pass over the images
INSIDE = 3  # ξ tried in each of them
STEPS = 8  # passes of the refinement, at most
FINEST = 0.25  # its last step, in octaves of 1 − ξ


def check_keep(keep: Sequence[float], decisions: int) -> None:
    """Raises UsageError unless there is a share in (0, 1] for each decision and none is larger than the one before."""
    text = ",".join(f"{share:g}" for share in keep)
    if len(keep) != decisions:
        raise UsageError(f"--keep {text}: give {decisions} shares, one a decision")
    for share in keep:
        if not 0 < share <= 1:
            raise UsageError(f"--keep {text}: {share:g} is not a share of the tokens: give each above 0 and at most 1")
    for earlier, later in pairwise(keep):
        if later > earlier:
            raise UsageError(
                f"--keep {text}: a stopped token never returns, so {later:g} cannot follow {earlier:g}: "
                "give shares of all tokens that do not rise"
            )


def fit_keep(observer: Observer, keep: Sequence[float]) -> tuple[Point, list[str]]:
    """ξ such that on average the shares `keep` of all N tokens are kept after the decisions; and what was not reached.

    One after the other: what a decision sees depends on the ξ before it, and on no other.
    """
    check_keep(keep, len(observer.manifest.decisions))
    found: list[float] = []
    notes: list[str] = []
    for number, share in enumerate(keep, start=1):
        seen, windows = observer.confidences(found)
        everything = windows * observer.manifest.tokens
        threshold, kept = seen.threshold(share * everything)
        if abs(kept / everything - share) > TOLERANCE:
            notes.append(f"decision {number} keeps {kept / everything:.1%} instead of {share:.1%}: ")
            value, equal = seen.equal_at(threshold)
            if kept == seen.total:
                notes[-1] += "the decision before it leaves no more"
            elif kept == seen.nans:
                notes[-1] += "that many confidences are NaN, and those tokens are always kept"
            elif equal == 1:
                notes[-1] += f"with {everything} tokens in all there is no ξ that comes nearer; give more images"
            else:
                notes[-1] += (
                    f"{equal / everything:.1%} of all tokens have exactly the confidence {value:.9g}, "
                    "and equal ones stay or stop together"
                )
        found.append(threshold)
    point = observer.measure([tuple(found)])[0]
    return point, notes


def measure_curve(observer: Observer, points: int) -> list[Point]:
    """The curve: `points` ξ at even shares of the dense model's confidences, 0 and 1 among them, and the bundle's own."""
    spread = observer.spread()
    inner = spread.between(0.0, 1.0, points - 2) if points > 2 else []
    common = [observer.common(x) for x in (0.0, *inner, 1.0)]
    observer.measure([observer.manifest.thresholds, *common])
    return observer.curve()


def fit_macs(observer: Observer, ratio: float, count: Count, points: int) -> tuple[Point, list[str]]:
    """One ξ for all decisions with mean MACs / dense MACs = `ratio` within TOLERANCE, or the nearest that was found.

    Raises UsageError for a ratio outside (0, 1), DovitError where even ξ = 0 costs more.
    """
    if not 0 < ratio < 1:
        raise UsageError(f"--macs {ratio:g}: give a share of the dense model's MACs between 0 and 1, as 0.5")
    curve = measure_curve(observer, points)
    least = curve[0].ratio(count)
    if least - ratio > TOLERANCE:
        raise DovitError(
            f"--macs {ratio:g} cannot be reached: with ξ = 0 all tokens stop at the first decision, and what is left "
            f"still costs {least:.3f} of the dense model ({count} count); ask for more than that"
        )
    for _ in range(ROUNDS):
        if abs(_nearest(curve, ratio, count).ratio(count) - ratio) <= TOLERANCE:
            break
        crossing = [(a, b) for a, b in pairwise(curve) if a.ratio(count) <= ratio <= b.ratio(count)]
        if not crossing:
            break
        low, high = crossing[-1]  # cost need not rise everywhere; the largest ξ changes the fewest labels
        curve = _refine_interval(observer, low, high)
        if not curve:
            break
    best = _nearest(observer.curve(), ratio, count)
    notes = []
    if abs(best.ratio(count) - ratio) > TOLERANCE:
        notes.append(
            f"the nearest ratio found is {best.ratio(count):.3f} instead of {ratio:g}: so few tokens have confidences "
            "thereabouts that cost goes in steps; more images may help"
        )
    return best, notes


def fit_disagreement(
    observer: Observer, limit: float, count: Count, points: int, per_decision: bool = False
) -> tuple[Point, list[str]]:
    """The cheapest ξ found whose labels differ from the dense model's at no more than `limit` of all pixels.

    One ξ for all decisions, the search ending where the next smaller ξ tried breaks the limit and is at most TOLERANCE
    cheaper; with `per_decision` steps of single ξ from there. Raises UsageError for a limit outside [0, 1).
    """
    if not 0 <= limit < 1:
        raise UsageError(f"--max-disagreement {limit:g}: give a share of the pixels below 1, as 0.005 or 0.5%")
    curve = measure_curve(observer, points)
    for _ in range(ROUNDS):
        best = _cheapest(curve, limit, count)
        place = curve.index(best)
        if place == 0 or best.ratio(count) - curve[place - 1].ratio(count) <= TOLERANCE:
            break
        if not (tried := _refine_interval(observer, curve[place - 1], best)):
            break
        curve = tried
    best = _cheapest(observer.curve(), limit, count)
    if per_decision:
        best = refine(observer, best, limit, count)
    notes = []
    if best.thresholds == observer.dense:
        notes.append(f"no smaller ξ was found that changes at most {limit:.3%} of the labels: no token stops")
    return best, notes


def refine(observer: Observer, start: Point, limit: float, count: Count) -> Point:
    """Cheaper than `start` within `limit`, if one ξ a decision allows it: lower one, or lower one and raise another.

    Steps are octaves of 1 − ξ, halved when none helps: confidences crowd at 1.
    """
    best, step, left = start, 1.0, STEPS
    while step >= FINEST and left:
        left -= 1
        tried = observer.measure(_moves(best.thresholds, step))
        allowed = [p for p in tried if p.disagreement <= limit and p.ratio(count) < best.ratio(count)]
        if allowed:
            best = min(allowed, key=lambda p: p.ratio(count))
        else:
            step /= 2
    return best


def _moves(thresholds: tuple[float, ...], step: float) -> list[tuple[float, ...]]:
    def moved(changes: dict[int, float]) -> tuple[float, ...]:
        # 1 − ξ = 0 could not be doubled: start from what is hardly more
        far = {k: max(1 - thresholds[k], 2.0**-14) * 2.0**octaves for k, octaves in changes.items()}
        return tuple(shortest(np.float32(max(0.0, 1 - far[k]))) if k in far else x for k, x in enumerate(thresholds))

    numbers = range(len(thresholds))
    lower = [moved({k: step}) for k in numbers]
    return lower + [moved({down: step, up: -step}) for down, up in permutations(numbers, 2)]


def _refine_interval(observer: Observer, low: Point, high: Point) -> list[Point]:
    """`low`, `high` and what lies between, measured; [] where no ξ does."""
    inside = observer.spread().between(low.thresholds[0], high.thresholds[0], INSIDE)
    return [low, *observer.measure([observer.common(x) for x in inside]), high] if inside else []


def _nearest(points: Sequence[Point], ratio: float, count: Count) -> Point:
    return min(points, key=lambda p: abs(p.ratio(count) - ratio))


def _cheapest(points: Sequence[Point], limit: float, count: Count) -> Point:
    return min((p for p in points if p.disagreement <= limit), key=lambda p: (p.ratio(count), p.disagreement))
