"""Writes new thresholds and capacities into a bundle's manifest, atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dovit.runtime.bundle.check import check_manifest
from dovit.runtime.bundle.lock import writer_lock
from dovit.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from dovit.runtime.bundle.open import read_manifest
from dovit.runtime.errors import DovitError
from dovit.runtime.files import atomic_write


def write_calibration(
    root: Path, expected: Manifest, thresholds: Sequence[float], capacities: Sequence[int]
) -> Manifest:
    """Replace ξ and capacities in the bundle at `root` and nothing else; the new manifest.

    `expected`: the manifest that was calibrated. Raises DovitError where the bundle is another one by now, or cannot be
    written; whatever is raised, the old manifest is as it was.
    """
    fields = expected.model_dump() | {"thresholds": tuple(thresholds), "capacities": tuple(capacities)}
    manifest = Manifest.model_validate(fields)
    check_manifest(manifest, root / MANIFEST_NAME)
    try:
        with writer_lock(root):
            if read_manifest(root) != expected:
                raise DovitError(f"{root}: the bundle was changed meanwhile and is left as it is; calibrate again")
            with atomic_write(root / MANIFEST_NAME) as part:
                part.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DovitError(f"{root}: cannot be written: {error.strerror or error}") from None
    return manifest
