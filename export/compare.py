"""Compares a bundle at ξ = 1 with logits that the user's own framework saved as .npy.

Verification compares with our own torch model, which is wrong where a setting of the checkpoint is read wrongly. This does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dovit.runtime.bundle.manifest import REFINEMENT, Manifest, Mode
from dovit.runtime.errors import DovitError, first_line
from dovit.runtime.images import read_image
from dovit.runtime.loading import load
from dovit.runtime.resize import resize_bilinear

TOLERANCE = 1e-3  # largest difference, relative to the largest of the framework's logits
SAVE = "np.save('logits.npy', logits.cpu().numpy())"


@dataclass(frozen=True)
class Reference:
    """What a framework made of `image`: `logits`, a .npy file of [C, h, w] or [1, C, h, w], at the decoder's resolution, the
    bundle's or the image's; and how far the bundle may be from it."""

    logits: Path
    image: Path
    tolerance: float = TOLERANCE
    mode: Mode | None = None  # None: the bundle's default


@dataclass(frozen=True)
class Comparison:
    """Largest difference of logits, the same over the framework's largest value, share of equal labels, and where."""

    difference: float
    relative: float
    label_agreement: float
    size: tuple[int, int]  # h, w of the logits that were compared
    mode: str


def compare(folder: Path, reference: Reference, progress: Callable[[str], None]) -> Comparison:
    """Run the bundle in `folder` at ξ = 1 and compare. Raises DovitError where the two cannot be compared,
    or differ by more than the tolerance."""
    progress("comparing with the given logits")
    theirs = read_logits(reference.logits)
    image = read_image(reference.image)
    session = load(folder, "onnxruntime", provider="cpu", low_memory=True)
    manifest = session.manifest
    mode = reference.mode or manifest.mode
    if len(theirs) != manifest.classes:
        raise DovitError(f"{reference.logits}: logits of {len(theirs)} classes, and the bundle has {manifest.classes}")
    shown = (image.shape[0], image.shape[1])
    if manifest.keep_ratio and mode == "whole" and shown != manifest.image_size:
        raise DovitError(
            f"{reference.image}: {_by(shown)}; this bundle pads an image of another size: compare one of "
            f"{_by(manifest.image_size)}"
        )
    ones = (1.0,) * len(manifest.decisions)
    made = session(image, threshold=ones, mode=mode, schedule="exact", return_logits=True).logits
    assert made is not None
    ours = _at_size_of(theirs, made, shown, mode, manifest, reference)
    difference = float(np.abs(ours - theirs).max())
    difference = difference if np.isfinite(difference) else float("inf")
    labels = float((ours.argmax(axis=0) == theirs.argmax(axis=0)).mean())
    scale = float(np.abs(theirs).max()) or 1.0
    found = Comparison(difference, difference / scale, labels, (theirs.shape[1], theirs.shape[2]), mode)
    if not found.relative <= reference.tolerance:
        raise DovitError(
            f"{reference.logits}: the bundle's logits differ by {found.difference:.2g}, {found.relative:.1e} of the largest "
            f"(bound {reference.tolerance:g}), {labels:.2%} of the labels are equal; no bundle was written. Compare the settings "
            f"that the export prints with your framework's (mean, std, order of channels, mode, stride), and use a PNG: JPEG "
            f"decoders differ{_of_refinement(manifest)}"
        )
    return found


def _of_refinement(manifest: Manifest) -> str:
    if REFINEMENT not in manifest.architecture:
        return ""
    return (
        "; this model has a refinement, which changes its output even at ξ = 1: compare the model it was adapted from"
    )


def read_logits(file: Path) -> np.ndarray:
    """float32 [C, h, w]. Raises DovitError for anything else."""
    try:
        found = np.load(file, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        raise DovitError(f"{file}: no such logits; save them with {SAVE}") from None
    except (OSError, ValueError, EOFError) as error:
        raise DovitError(f"{file}: not an array that numpy saved ({first_line(error)}); save it with {SAVE}") from None
    shape: tuple[int, ...] = getattr(found, "shape", ())
    if len(shape) == 4 and shape[0] == 1:
        found = found[0]
    if not isinstance(found, np.ndarray) or found.ndim != 3 or found.dtype.kind != "f" or 0 in found.shape:
        kind = f"{found.dtype} {list(shape)}" if isinstance(found, np.ndarray) else "several arrays"
        raise DovitError(
            f"{file}: holds {kind}, expected logits [C, h, w] or [1, C, h, w] of floating point, before any argmax"
        )
    logits = np.asarray(found, np.float32)
    if not np.isfinite(logits).all():
        raise DovitError(f"{file}: holds values that are not finite; compare a pass without overflow, in float32")
    return logits


def _at_size_of(
    theirs: np.ndarray, ours: np.ndarray, image: tuple[int, int], mode: Mode, manifest: Manifest, reference: Reference
) -> np.ndarray:
    """The bundle's logits [C, h', w'] as [C, h, w] of the framework's: resized as the bundle resizes them for its labels."""
    size = theirs.shape[1], theirs.shape[2]
    if size == ours.shape[1:]:
        return ours
    if size in (image, manifest.image_size if mode == "whole" else image):
        return resize_bilinear(ours, size)
    raise DovitError(
        f"{reference.logits}: logits of {_by(size)} for an image of {_by(image)}; expected {_by(ours.shape[1:])} (the decoder's) "
        f"or {_by(image)}. Is it the same image, in mode {mode}?"
    )


def _by(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))
