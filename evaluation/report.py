"""Outcomes as JSON and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from dovit.evaluation.evaluate import Outcome
from dovit.runtime.cli.output import escaped, new_table, print_table


def as_json(outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Everything about one setting; accuracies in percent, NaN as null."""
    iou, accuracy = 100 * outcome.confusion.iou, 100 * outcome.confusion.accuracy
    return {
        "name": outcome.setting.name,
        "thresholds": list(outcome.setting.thresholds),
        "counts": None if outcome.setting.counts is None else list(outcome.setting.counts),
        **{name: _plain(value) for name, value in outcome.confusion.summary().items()},
        "tokens": outcome.tokens,
        "kept": list(outcome.kept),
        "kept_p10": list(outcome.kept_quantile(0.1)),
        "kept_p90": list(outcome.kept_quantile(0.9)),
        "macs_ratio_paper": outcome.macs_ratio[0],
        "macs_ratio_true": outcome.macs_ratio[1],
        "gmacs_paper": outcome.macs[0] / max(outcome.images, 1) / 1e9,
        "gmacs_true": outcome.macs[1] / max(outcome.images, 1) / 1e9,
        "latency_ms_median": _plain(1e3 * outcome.latency.quantile(0.5)),
        "latency_ms_p90": _plain(1e3 * outcome.latency.quantile(0.9)),
        "speedup_over": outcome.speedup_over,
        "speedup_median": _plain(outcome.speedup.quantile(0.5)),
        "images": outcome.images,
        "windows": outcome.windows,
        "classes": {n: {"IoU": _plain(i), "Acc": _plain(a)} for n, i, a in zip(names, iou, accuracy, strict=True)},
    }


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """One row a setting."""
    first = outcomes[0]
    paired = len(outcomes) > 1 and first.speedup_over is not None
    headings = ["", "mIoU", "PA", "mPA", "kept", "MACs\npaper", "MACs\ntrue", "ms\nmedian", *["speed-\nup"] * paired]
    table = new_table(*headings, left=(0, 4), text=(0,))
    for outcome in outcomes:
        summary = outcome.confusion.summary()
        kept = "/".join(f"{k:.0f}" for k in outcome.kept) or "all"
        paper, true = outcome.macs_ratio
        table.add_row(
            escaped(outcome.setting.name),
            f"{summary['mIoU']:.2f}",
            f"{summary['PA']:.2f}",
            f"{summary['mPA']:.2f}",
            kept,
            f"{paper:.1%}",
            f"{true:.1%}",
            f"{1e3 * outcome.latency.quantile(0.5):.1f}",
            *[_ratio(outcome.speedup.quantile(0.5))] * paired,
        )
    note = f"speed-up: over {first.speedup_over}, median over the images" if paired else ""
    plural = "s" * (first.images != 1)
    print_table(console, f"{first.images} image{plural}, {first.tokens} tokens each" + _windows(first), table, note)


def print_classes(console: Console, outcome: Outcome, names: Sequence[str]) -> None:
    """One row a class."""
    table = new_table("", "IoU", "Acc")
    for name, iou, accuracy in zip(names, outcome.confusion.iou, outcome.confusion.accuracy, strict=True):
        table.add_row(escaped(name), *("–" if math.isnan(v) else f"{100 * v:.2f}" for v in (iou, accuracy)))
    print_table(console, f"Classes, {outcome.setting.name}", table)


def _windows(outcome: Outcome) -> str:
    return "" if outcome.windows == outcome.images else f" of {outcome.windows} windows"


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"  # fixed ratios have no pairs


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
