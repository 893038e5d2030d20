"""The part of an export that needs torch: checkpoint → model → ONNX steps, compared with the model."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dovit.export.build import build
from dovit.export.capacities import check_capacities, default_capacities
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.checkpoints.settings import Setting
from dovit.export.model import DoViT
from dovit.export.verify import Pass, verify
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.write import write_manifest
from dovit.runtime.palettes import palette_for

SMALLER_IMAGES = (
    "mode slide enlarges an image that is smaller than the window ({0}×{1}); mmsegmentation runs its model at the smaller "
    "size instead, so labels of such images differ"
)


@dataclass
class Fresh:
    """ONNX files made of a checkpoint."""

    manifest: Manifest
    format: str
    notes: list[str]
    settings: tuple[Setting, ...]
    passes: list[Pass] = field(default_factory=list)


def make_onnx(
    checkpoint: Path,
    stage: Path,
    options: dict[str, Any],
    capacities: tuple[int, ...] | None,
    palette: str | None,
    *,
    check: bool,
    progress: Callable[[str], None],
) -> Fresh:
    """Export `checkpoint` into the empty folder `stage`. `options` are those of ReadOptions, `palette` as `palette_for` takes
    it. Raises DovitError or UsageError."""
    facts: dict[str, Any] = {}

    def model() -> DoViT:
        loaded = load_model(checkpoint, ReadOptions(**options))
        facts.update(format=loaded.format, notes=list(loaded.notes), settings=loaded.settings)
        if palette is not None:
            names, colours = palette_for(palette, loaded.model.config.classes)
            update = {"palette": tuple(map(tuple, colours)), "class_names": tuple(names) if names else None}
            loaded.model.config = loaded.model.config.model_copy(update=update)
        return loaded.model

    def fill() -> Manifest:
        # the model lives in this function only: verification loads it again, after it is done with the bundle
        progress("reading the checkpoint")
        made = model()
        tokens = made.config.tokens
        chosen = default_capacities(tokens) if capacities is None else check_capacities(capacities, tokens)
        return build(made, chosen, stage, progress)

    manifest = fill()
    passes: list[Pass] = []
    if check:
        gc.collect()  # a graph's nodes and tensors refer to each other, and to the weights
        write_manifest(stage, manifest)
        passes = verify(stage, model, progress)
    notes = facts["notes"]
    if facts["format"] == "mmsegmentation" and manifest.mode == "slide":
        notes.append(SMALLER_IMAGES.format(*manifest.image_size))
    return Fresh(manifest, facts["format"], notes, facts["settings"], passes)
