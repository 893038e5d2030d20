"""Checks of the arguments that select tokens: thresholds ξ, counts and shares, one per decision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.errors import UsageError


def shown(value: Any) -> str:
    """A wrong value for a message: its repr in one line of at most 80 characters, or its type where it has none."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of more than 4300 digits, or a __repr__ of the caller's that raises
        return f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 80 else text[:79] + "…"


def is_one_of(value: Any, choices: Iterable[str]) -> bool:
    """`value in choices` for any object: arrays compare element by element, and their comparison has no truth value."""
    return isinstance(value, str) and value in tuple(choices)


def check_thresholds(manifest: Manifest, threshold: float | Sequence[float] | np.ndarray | None) -> tuple[float, ...]:
    """One threshold ξ per decision, default the bundle's. Raises UsageError for a wrong number of them or one outside [0, 1]."""
    count = len(manifest.decisions)
    if threshold is None:
        return manifest.thresholds
    given = [_as_float(value, "threshold") for value in _as_list(threshold, "threshold", "numbers within 0…1")]
    if len(given) == 1:
        given *= count
    if len(given) != count:
        check_decides(count, "threshold")
        raise UsageError(f"{len(given)} thresholds for {count} decisions: give one for all, or one each")
    for value in given:
        if not 0 <= value <= 1:
            raise UsageError(f"threshold {value} lies outside [0, 1]; 1 stops no token")
    return tuple(given)


def check_counts(manifest: Manifest, counts: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The number of tokens to keep after each decision. Raises UsageError unless these are integers that never rise."""
    values = _as_list(counts, "counts", "whole numbers of tokens")
    for value in values:
        if not _is_number(value, Integral):
            raise UsageError(f"counts {_joined(values)}: give whole numbers of tokens; for shares of them, keep=")
    given = [int(value) for value in values]
    most, least, decisions = manifest.tokens, manifest.least_kept, len(manifest.decisions)
    if len(given) != decisions or not _never_rises(given, most) or any(count < least for count in given):
        check_decides(decisions, "counts")
        raise UsageError(f"counts {_joined(given)}: give {decisions} falling numbers of tokens, from {most} to {least}")
    return tuple(given)


def check_keep(manifest: Manifest, keep: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    """Shares of all tokens to keep after each decision, converted to counts. Raises UsageError unless they never rise."""
    return counts_of_shares(keep, len(manifest.decisions), manifest.tokens, manifest.least_kept)


def counts_of_shares(
    keep: Sequence[float] | np.ndarray, decisions: int, tokens: int, least: int, name: str = "keep"
) -> tuple[int, ...]:
    """As check_keep, for any model with so many `decisions` and `tokens` that keeps at least so many; `name`: the argument's."""
    values = _as_list(keep, name, "shares of the tokens within 0…1")
    given = [_as_float(value, name) for value in values]
    if len(given) != decisions or not _never_rises(given, 1):
        check_decides(decisions, name)
        raise UsageError(f"{name} {_joined(values)}: give {decisions} falling shares of the tokens, from 1 to 0")
    return tuple(count_of_share(share, tokens, least) for share in given)


def count_of_share(share: float, tokens: int, least: int) -> int:
    """How many of the `tokens` a share of them is: the nearest whole number, of two the larger, and no fewer than `least`."""
    return max(math.floor(share * tokens + 0.5), least)


def check_decides(decisions: int, name: str) -> None:
    """Raise UsageError where an argument about token pass is given for a model without decisions."""
    if not decisions:
        raise UsageError(f"{name}: the model has no decisions, so no token stops: leave {name} out")


def _never_rises(values: Sequence[float], most: float) -> bool:
    return all(0 <= value <= limit for value, limit in zip(values, [most, *values], strict=False))


def _as_list(given: Any, name: str, what: str) -> list[Any]:
    if type(given).__module__.partition(".")[0] == "torch":
        try:
            given = given.detach().cpu().numpy()
        except (AttributeError, TypeError, RuntimeError):
            raise UsageError(f"{name} is a {type(given).__name__} that numpy cannot take: give {what}") from None
    if isinstance(given, np.ndarray):
        if given.ndim > 1:
            raise UsageError(f"{name} is an array {list(given.shape)}: give {what}, one a decision")
        return list(np.atleast_1d(given))
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return list(given)
    return [given]


def _as_float(value: Any, name: str) -> float:
    if not _is_number(value, Real):
        raise UsageError(f"{name} {shown(value)} is no number: give numbers within 0…1")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        raise UsageError(f"{name} {shown(value)} is too large: give numbers within 0…1") from None


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(shown(value.item() if isinstance(value, np.generic) else value) for value in values[:20]) + (
        ", …" if len(values) > 20 else ""
    )
