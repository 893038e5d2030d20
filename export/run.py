"""The export as one function: checkpoint → model → steps → verified bundle in place."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dovit.export.build import build
from dovit.runtime.bundle.write import write_bundle
from dovit.export.capacities import check_capacities, default_capacities
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.export.verify import Pass, verify
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.palettes import palette_for


@dataclass
class Exported:
    """What came of an export."""

    manifest: Manifest
    format: str
    notes: list[str]
    passes: list[Pass] = field(default_factory=list)


def export(
    checkpoint: Path,
    out: Path,
    options: dict[str, Any],
    capacities: tuple[int, ...] | None,
    palette: str | None,
    *,
    check: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Export `checkpoint` into the folder `out`. `options` are those of ReadOptions, `palette` as `palette_for` takes it.

    Raises DovitError or UsageError, and then leaves `out` as it was.
    """
    facts: dict[str, Any] = {}
    passes: list[Pass] = []

    def model() -> DoViT:
        loaded = load_model(checkpoint, ReadOptions(**options))
        facts.update(format=loaded.format, notes=list(loaded.notes))
        if palette is not None:
            names, colours = palette_for(palette, loaded.model.config.classes)
            update = {"palette": tuple(map(tuple, colours)), "class_names": tuple(names) if names else None}
            loaded.model.config = loaded.model.config.model_copy(update=update)
        return loaded.model

    def fill(stage: Path) -> Manifest:
        # the model lives in this function only: verification loads it again, after it is done with the bundle
        progress("reading the checkpoint")
        made = model()
        tokens = made.config.tokens
        chosen = default_capacities(tokens) if capacities is None else check_capacities(capacities, tokens)
        return build(made, chosen, stage, progress)

    def look(stage: Path) -> None:
        if check:
            gc.collect()  # a graph's nodes and tensors refer to each other, and to the weights
            passes.extend(verify(stage, model, progress))

    manifest = write_bundle(out, fill, look)
    return Exported(manifest, facts["format"], facts["notes"], passes)
