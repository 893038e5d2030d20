"""Bundles of small models for the tests."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from shared import made_once

from dovit.export.build import build
from dovit.export.capacities import default_capacities
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import read_manifest
from dovit.runtime.bundle.write import write_bundle, write_manifest


def make_bundle(model: DoViT, folder: Path, capacities: tuple[int, ...] | None = None) -> Manifest:
    """Write the bundle of `model`, unverified. A model that was exported in this run already is not exported again: its files are
    copied, so a test may change them."""
    chosen = capacities or default_capacities(model.config.tokens)

    def export(stage: Path) -> None:
        write_manifest(stage, build(model, chosen, stage, lambda _: None))

    exported = made_once(f"bundle-{_digest(model, chosen)}", export)

    def copy(stage: Path) -> Manifest:
        manifest = read_manifest(exported)
        for name in manifest.files:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exported / name, stage / name)
        return manifest

    return write_bundle(folder, copy)


def _digest(model: DoViT, capacities: tuple[int, ...]) -> str:
    """Hash of all that the exported files depend on, except the code, which does not change during a run."""
    content = hashlib.sha256(f"{model.config.model_dump_json()} {capacities}".encode())
    for name, tensor in model.state_dict().items():
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
