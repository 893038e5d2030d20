"""A calibration for people: what was chosen, and the curve it was chosen from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dovit.training.calibration.fit import Calibration
from dovit.training.calibration.point import Point


def print_report(console: Console, found: Calibration) -> None:
    """Two tables, the capacities, and the notes."""
    if found.curve:
        rows = [(f"{p.thresholds[0]:.9g}", p) for p in found.curve]
        console.print(_table("the curve: one ξ for all decisions", "ξ", rows))
    named = [("the bundle's ξ", found.before), ("ξ found", found.after)]
    console.print(_table("calibration", "", named))
    for name, point in named:
        _line(console, f"{name}: {', '.join(f'{x:.9g}' for x in point.thresholds)}")
    _line(console, f"capacities: {', '.join(map(str, found.capacities))}")
    _line(
        console,
        f"tokens filled up by a decision on average: {found.fill_before:.2f} with the bundle's capacities, "
        f"{found.fill:.2f} with the new ones",
    )
    for note in found.notes:
        _line(console, f"note: {note}")


def _table(title: str, first: str, rows: Sequence[tuple[str, Point]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, no_wrap=True)
    for number in range(1, len(rows[0][1].kept) + 1):
        table.add_column(f"kept by {number}, %", justify="right")
    for heading in ("MACs, paper", "MACs, true", "labels changed, %"):
        table.add_column(heading, justify="right")
    for name, point in rows:
        kept = [
            _kept(share, error / point.tokens) for share, error in zip(point.shares, point.kept_error, strict=True)
        ]
        macs = (f"{ratio:.3f}" for ratio in point.macs)
        table.add_row(name, *kept, *macs, f"{100 * point.disagreement:.3f}")
    return table


def _kept(share: float, error: float) -> str:
    """A share in per cent with its standard error, where there is one."""
    return f"{100 * share:.1f}" + ("" if math.isnan(error) else f" ± {100 * error:.1f}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
