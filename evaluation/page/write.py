"""Writes an evaluation as one HTML file that needs neither a server nor a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from dovit.evaluation.evaluate import Outcome
from dovit.evaluation.page.gallery import Gallery
from dovit.evaluation.report import as_json
from dovit.runtime.errors import UsageError, printable
from dovit.runtime.files import atomic_write
from dovit.runtime.palettes import Colour


def check_page(path: Path) -> None:
    """Raise UsageError now rather than after the evaluation, where the report cannot be written to `path`."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"--report needs the package {error.name}: pip install 'dovit[report]'") from None
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: the report is HTML; give a name that ends in .html")


def write_page(
    path: Path,
    outcomes: Sequence[Outcome],
    galleries: Sequence[Gallery],
    *,
    title: str,
    about: Mapping[str, str],
    names: Sequence[str],
    palette: Sequence[Colour],
) -> None:
    """Write the report of `outcomes`; the first ones have their gallery. `about`: what was run, as rows of name and value.

    Raises DovitError where the file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    from dovit.evaluation.page.figures import as_html, block_figure, class_figure, sweep_figures

    names = [printable(name) for name in names]
    settings = []
    for number, outcome in enumerate(outcomes):
        gallery = galleries[number] if number < len(galleries) else None
        figure = None
        if gallery is not None:
            figure = as_html(block_figure(gallery, outcome.dense_macs, outcome.tokens), f"blocks-{number}")
        numbers = as_json(outcome, names)
        settings.append(
            {
                **numbers,
                "name": printable(outcome.setting.name),
                "classes": _classes(outcome, names, palette),
                "figure": figure,
                "groups": _groups(gallery) if gallery is not None else [],
            }
        )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    template = (files("dovit.evaluation.page") / "report.html.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        title=printable(title),
        about={name: printable(value) for name, value in about.items()},
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        plotly=get_plotlyjs(),
        settings=settings,
        sweep=[(caption, as_html(figure, f"sweep-{n}")) for n, (caption, figure) in enumerate(sweep_figures(outcomes))],
        class_map=as_html(class_figure(outcomes, names), "classes"),
    )
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")  # a file's name may hold what no encoding can write


def _groups(gallery: Gallery) -> list[tuple[str, list[Any]]]:
    titled = [
        ("The fewest tokens", gallery.fewest),
        ("The most tokens", gallery.most),
        ("The worst: lowest pixel accuracy", gallery.worst),
    ]
    return [(title, entries) for title, entries in titled if entries]


def _classes(outcome: Outcome, names: Sequence[str], palette: Sequence[Colour]) -> list[dict[str, Any]]:
    """A row a class: its accuracies and its share of the labelled pixels in per cent, and what it is mistaken for most."""
    counts = outcome.confusion.counts  # [true, predicted]
    total = max(int(counts.sum()), 1)
    rows = []
    for number, (name, iou, accuracy) in enumerate(
        zip(names, outcome.confusion.iou, outcome.confusion.accuracy, strict=True)
    ):
        missed = counts[number].copy()
        pixels, missed[number] = int(missed.sum()), 0
        other = int(np.argmax(missed))
        rows.append(
            {
                "name": name,
                "colour": "#{:02x}{:02x}{:02x}".format(*palette[number]),
                "iou": 100 * float(iou),
                "accuracy": 100 * float(accuracy),
                "share": 100 * pixels / total,
                "mistaken": f"{names[other]} ({100 * missed[other] / pixels:.1f} %)" if missed.any() else "",
            }
        )
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
