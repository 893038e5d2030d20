"""The named dimensions of a bundle's tensors: see `dovit.runtime.bundle.tensors`."""

from __future__ import annotations

from dovit.runtime.bundle.manifest import Manifest


def full_dims(manifest: Manifest, batch: int) -> dict[str, int]:
    """Every named dimension at its largest: each decision keeps all tokens."""
    dims = {"batch": batch}
    for number in range(1, len(manifest.decisions) + 1):
        dims |= kept_dims(manifest, number, manifest.tokens)
    return dims


def kept_dims(manifest: Manifest, number: int, kept: int) -> dict[str, int]:
    """The dimensions that decision `number` (from 1) fixes when it keeps `kept` tokens."""
    return {f"kept{number}": kept, f"length{number}": kept + manifest.prefix}


def decided_dims(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Every dimension that a decision fixes: its number (from 1), and how much larger than its kept count it is."""
    numbers = range(1, len(manifest.decisions) + 1)
    return {name: (number, more) for number in numbers for name, more in kept_dims(manifest, number, 0).items()}
