"""The tables of `dovit-bench --peers` and `--sizes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dovit.runtime.cli.output import new_table, output_console, print_table


def print_peers(report: dict[str, Any]) -> None:
    """One report of `compare_peers`."""
    table = new_table(
        "",
        "tokens kept",
        "ms",
        "GMACs\ntrue",
        "fewer\nMACs",
        "speed-up",
        "over best\npeer",
        "labels\nequal",
        left=(0, 1),
        text=(0,),
    )
    for row in report["rows"]:
        table.add_row(
            row["name"],
            "/".join(map(str, row["kept"])),
            f"{row['latency_ms']:.1f}",
            f"{row['gmacs_true']:.1f}",
            f"{row['mac_ratio']:.2f}",
            _ratio(row["speedup"]),
            _ratio(row["over_best_peer"]),
            f"{100 * row['labels_equal']:.1f} %",
        )
    size = "×".join(map(str, report["image_size"]))
    title = f"{report['architecture']}, {size}: {report['runs']} rounds, threads: {report['threads']}"
    best = report["rows"][0]["best_peer"]
    note = (
        "speed-up: over the dense model of the same runtime and precision; over best peer: "
        f"{f'over {best}, the fastest but int8' if best else 'no dense model was measured'}; both are medians of paired ratios. "
        "labels equal: share of the first row's labels"
    )
    print_table(output_console(), title, table, note)
    _print_left_out(report)


def print_sizes(reports: Sequence[dict[str, Any]]) -> None:
    """The reports of `compare_sizes`."""
    names = list(dict.fromkeys(row["name"] for report in reports for row in report["rows"]))
    table = new_table("ms", *(str(report["tokens"]) for report in reports))
    for name in names:
        found = [next((row for row in report["rows"] if row["name"] == name), None) for report in reports]
        table.add_row(name, *("–" if row is None else f"{row['latency_ms']:.1f}" for row in found))
    first = reports[0]
    title = f"{first['architecture']}, by tokens of an image: {first['runs']} rounds, threads: {first['threads']}"
    print_table(output_console(), title, table)
    for report in reports:
        _print_left_out(report)


def _print_left_out(report: dict[str, Any]) -> None:
    for name, why in report["left_out"].items():
        output_console().print(f"left out at {report['tokens']} tokens: {name}: {why}", markup=False, highlight=False)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
