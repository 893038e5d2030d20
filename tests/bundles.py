"""Bundles of small models for the tests."""

from __future__ import annotations

from pathlib import Path

from dovit.export.build import build
from dovit.export.capacities import default_capacities
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.write import write_bundle


def make_bundle(model: DoViT, folder: Path, capacities: tuple[int, ...] | None = None) -> Manifest:
    """Write the bundle of `model`, unverified."""
    chosen = capacities or default_capacities(model.config.tokens)
    return write_bundle(folder, lambda stage: build(model, chosen, stage, lambda _: None))
