"""A calibration for people: what was chosen, and the curve it was chosen from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dovit.evaluation.calibration.fit import Calibration
from dovit.evaluation.calibration.point import Point


def print_report(console: Console, found: Calibration) -> None:
    """Two tables, the ξ, the capacities, and the notes."""
    if found.curve:
        rows = [(f"{p.thresholds[0]:.9g}", p) for p in found.curve]
        console.print(_table("the curve: one ξ for all decisions", "ξ", rows))
    console.print(_table("the bundle", "", [("before", found.before), ("after", found.after)]))
    _line(console, f"ξ before: {_thresholds(found.before)}; after: {_thresholds(found.after)}")
    if not any(map(math.isnan, found.after.kept_error)):
        errors = ", ".join(f"{100 * error / found.after.tokens:.1f}" for error in found.after.kept_error)
        _line(console, f"standard error of the kept shares, from the differences between images: {errors} points")
    _line(console, f"capacities: {', '.join(map(str, found.capacities))}")
    unseen = "" if found.fill_unseen is None else f", {found.fill_unseen:.2f} on images they were not fitted to"
    _line(
        console,
        f"tokens filled up by a decision on average: {found.fill_before:.2f} with the old capacities, "
        f"{found.fill:.2f} with the new ones{unseen}",
    )
    for note in found.notes:
        _line(console, f"note: {note}")


def _table(title: str, first: str, rows: Sequence[tuple[str, Point]]) -> Table:
    """Shares in per cent of all tokens and of all pixels, MACs as ratios to the dense model's."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, no_wrap=True)
    kept = [f"kept {number}, %" for number in range(1, len(rows[0][1].kept) + 1)]
    for heading in (*kept, "MACs paper", "MACs true", "changed, %"):
        table.add_column(heading, justify="right")
    for name, point in rows:
        shares = (f"{100 * share:.1f}" for share in point.shares)
        macs = (f"{ratio:.3f}" for ratio in point.macs)
        table.add_row(name, *shares, *macs, f"{100 * point.disagreement:.3f}")
    return table


def _thresholds(point: Point) -> str:
    return ", ".join(f"{x:.9g}" for x in point.thresholds)


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
