"""Checks a model's outputs against the manifest before they are used as sizes or indices.

`runtime/cpp/chain/check_outputs.cpp` checks the same, in the same words. A bundle's hashes prove that its files are those that
were exported, not that the model in them is correct or harmless.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dovit.runtime.errors import DovitError

REMEDY = "; the model in this bundle is wrong: export it again"


def check_made(step: str, name: str, made: np.ndarray | None, dtype: str, shape: Sequence[int]) -> None:
    """An output's type and shape. Raises DovitError."""
    if made is None:
        raise DovitError(f"step {step} did not make {name}{REMEDY}")
    if made.dtype != dtype or made.shape != tuple(shape):
        raise DovitError(f"step {step} made {name} as {_described(made)}, expected {dtype} {list(shape)}{REMEDY}")


def check_keep(step: str, name: str, made: np.ndarray | None, batch: int, before: int) -> None:
    """The tokens that a decision keeps: int32 [batch, K], K at most `before`, ascending within 0…before-1. Raises DovitError."""
    if made is None:
        raise DovitError(f"step {step} did not make {name}{REMEDY}")
    fits = made.dtype == np.int32 and made.ndim == 2 and made.shape[0] == batch and made.shape[1] <= before
    if not fits:
        expected = f"int32 [{batch}, at most {before}]"
        raise DovitError(f"step {step} made {name} as {_described(made)}, expected {expected}{REMEDY}")
    check_ascending(name, made, before)


def check_ascending(name: str, made: np.ndarray, limit: int) -> None:
    """Indices [B, M]: each row ascends within 0…limit-1. Raises DovitError."""
    if not made.shape[1]:
        return
    ascends = (made[:, 1:] > made[:, :-1]).all()
    if ascends and made[:, 0].min() >= 0 and made[:, -1].max() < limit:
        return
    for row in made.tolist():
        last = -1
        for index in row:
            if not 0 <= index < limit:
                raise DovitError(f"tensor {name} has the index {index}, expected 0 to {limit - 1}{REMEDY}")
            if index <= last:
                raise DovitError(
                    f"tensor {name} has the index {index} after {last}, expected ascending indices{REMEDY}"
                )
            last = index


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raises DovitError for a label that is no class."""
    if labels.dtype == np.uint8 and classes >= 256:
        return
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < classes:
            raise DovitError(f"tensor labels has the label {label}, expected 0 to {classes - 1}{REMEDY}")


def _described(made: np.ndarray) -> str:
    return f"{made.dtype} {list(made.shape)}"
