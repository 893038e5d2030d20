"""What the user reads when an export is done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dovit.runtime.bundle.manifest import Manifest

if TYPE_CHECKING:
    from dovit.export.checkpoints.settings import Setting
    from dovit.export.verify import Pass


def print_steps(console: Console, manifest: Manifest) -> None:
    """Steps with tokens (all kept), parameters, MACs in both counts, and file sizes."""
    table = Table(
        title=f"{manifest.architecture}, {manifest.image_size[0]}×{manifest.image_size[1]}", title_justify="left"
    )
    for name in ("step", "tokens", "parameters, M", "GMACs, paper", "GMACs, true", "files, MB"):
        table.add_column(name, justify="left" if name == "step" else "right")
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
    console.print(table)


def print_passes(console: Console, passes: list[Pass]) -> None:
    """The verification: largest relative difference of each step, labels, tokens kept."""
    table = Table(title="against the torch model: largest relative difference by step", title_justify="left")
    table.add_column("pass")
    for step in passes[0].differences:
        table.add_column(step, justify="right")
    table.add_column("labels equal", justify="right")
    table.add_column("kept")
    for one in passes:
        figures = [f"{one.differences[s]:.1e}" if s in one.differences else "-" for s in passes[0].differences]
        table.add_row(one.name, *figures, f"{one.label_agreement:.2%}", "/".join(map(str, one.kept)) or "all")
    console.print(table)


def print_settings(console: Console, settings: Sequence[Setting]) -> None:
    """Every setting that changes a result, and where it comes from; what was assumed stands last."""
    table = Table(title="settings", title_justify="left", box=None, pad_edge=False)
    for name in ("setting", "value", "from"):
        table.add_column(name, overflow="fold")
    rows: dict[tuple[str, str, str], None] = {}  # the same of several heads is one row
    for setting in sorted(settings, key=lambda s: s.origin == "assumed"):
        name = re.sub(r"\.\d+\.", ".*.", setting.name)
        rows[name, setting.text(), ("assumed: " if setting.origin == "assumed" else "") + setting.place] = None
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
