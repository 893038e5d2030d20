"""Prints a calibration: the thresholds found, and the measured curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from dovit.evaluation.calibration.fit import Calibration
from dovit.evaluation.calibration.point import Point
from dovit.runtime.cli.output import new_table, print_line, print_table


def print_report(console: Console, found: Calibration) -> None:
    """Two tables, the ξ, the capacities, and the notes."""
    if found.curve:
        rows = [(f"{p.thresholds[0]:.9g}", p) for p in found.curve]
        _print_points(console, "The curve: one ξ for all decisions", "ξ", rows)
    _print_points(console, "The bundle", "", [("before", found.before), ("after", found.after)])
    print_line(console, f"ξ before: {_thresholds(found.before)}; after: {_thresholds(found.after)}")
    if not any(map(math.isnan, found.after.kept_error)):
        errors = ", ".join(f"{100 * error / found.after.tokens:.1f}" for error in found.after.kept_error)
        print_line(console, f"standard error of the kept shares, from the differences between images: {errors} points")
    print_line(console, f"capacities: {', '.join(map(str, found.capacities))}")
    unseen = "" if found.fill_unseen is None else f", {found.fill_unseen:.2f} on images they were not fitted to"
    print_line(
        console,
        f"tokens filled up by a decision on average: {found.fill_before:.2f} with the old capacities, "
        f"{found.fill:.2f} with the new ones{unseen}",
    )
    for note in found.notes:
        print_line(console, f"note: {note}")


def _print_points(console: Console, title: str, first: str, rows: Sequence[tuple[str, Point]]) -> None:
    """Shares in per cent of all tokens and of all pixels, MACs as ratios to the dense model's."""
    kept = [f"kept {number}\n%" for number in range(1, len(rows[0][1].kept) + 1)]
    table = new_table(first, *kept, "MACs\npaper", "MACs\ntrue", "changed\n%")
    for name, point in rows:
        shares = (f"{100 * share:.1f}" for share in point.shares)
        macs = (f"{ratio:.3f}" for ratio in point.macs)
        table.add_row(name, *shares, *macs, f"{100 * point.disagreement:.3f}")
    print_table(console, title, table)


def _thresholds(point: Point) -> str:
    return ", ".join(f"{x:.9g}" for x in point.thresholds)
