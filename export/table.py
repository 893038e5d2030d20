"""Tables that dovit-export prints at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from rich.console import Console

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.cli.output import escaped, new_table, print_table

if TYPE_CHECKING:
    from dovit.export.checkpoints.settings import Setting
    from dovit.export.compare import Comparison
    from dovit.export.verify import Pass


def print_steps(console: Console, manifest: Manifest) -> None:
    """Steps with tokens (all kept), parameters, MACs in both counts, and file sizes."""
    table = new_table("step", "tokens", "parameters\nM", "GMACs\npaper", "GMACs\ntrue", "files\nMB")
    total = [0.0, 0.0, 0.0, 0.0]
    for step in manifest.steps:
        last = step is manifest.steps[-1]
        tokens = manifest.tokens if last else manifest.tokens + manifest.prefix
        size = sum(e.size for f, e in manifest.files.items() if f.startswith(f"onnx/{step.name}-"))
        row = [step.parameters / 1e6, step.macs.paper(tokens) / 1e9, step.macs.true(tokens) / 1e9, size / 1e6]
        total = [a + b for a, b in zip(total, row, strict=True)]
        table.add_row(step.name, str(tokens), *(f"{value:.2f}" for value in row))
    table.add_section()
    table.add_row("all tokens kept", "", *(f"{value:.2f}" for value in total))
    print_table(console, f"{manifest.architecture}, {manifest.image_size[0]}×{manifest.image_size[1]}", table)


def print_passes(console: Console, passes: list[Pass]) -> None:
    """The verification, a column a pass: largest relative difference of each step, labels, tokens kept."""
    table = new_table("", *(fill(one.name, 10) for one in passes))
    for step in passes[0].differences:
        figures = (f"{one.differences[step]:.1e}" if step in one.differences else "-" for one in passes)
        table.add_row(step, *figures)
    table.add_section()
    table.add_row("labels", *(f"{one.label_agreement:.2%}" for one in passes))
    for number in range(max(len(one.kept) for one in passes)):
        kept = (str(one.kept[number]) if number < len(one.kept) else "-" for one in passes)
        table.add_row(f"kept {number + 1}", *kept)
    note = "labels: share that is equal; kept: tokens after each decision; -: a step that no token reached"
    print_table(console, "Largest relative difference from the torch model", table, note)


def print_settings(console: Console, settings: Sequence[Setting]) -> None:
    """Every setting that changes a result, and where it comes from; what was assumed stands last."""
    table = new_table("setting", "value", "from", left=(0, 1, 2))
    rows: dict[tuple[str, str, str], None] = {}  # the same of several heads is one row
    for setting in sorted(settings, key=lambda s: s.origin == "assumed"):
        name = re.sub(r"\.\d+\.", ".*.", setting.name)
        rows[name, setting.text(), ("assumed: " if setting.origin == "assumed" else "") + setting.place] = None
    for row in rows:
        table.add_row(*map(escaped, row))
    print_table(console, "Settings", table)


def print_comparison(console: Console, found: Comparison) -> None:
    """The bundle against the user's own framework."""
    h, w = found.size
    table = new_table("", "")
    table.add_row("largest difference", f"{found.difference:.2g}")
    table.add_row("relative to the largest logit", f"{found.relative:.1e}")
    table.add_row("labels equal", f"{found.label_agreement:.2%}")
    print_table(console, f"Against the given logits, {h}×{w}, mode {found.mode}", table)
