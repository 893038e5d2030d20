"""Refuses options that nothing would come of."""

from __future__ import annotations

from collections.abc import Mapping

from dovit.runtime.arguments import check_decides
from dovit.runtime.errors import UsageError


def refuse_unused(options: Mapping[str, bool], why: str) -> None:
    """Raise UsageError for the first of `options` that is given, where a command could only ignore it. `options`: whether each is
    given, by its name; `why`: a sentence's part."""
    name = _first_given(options)
    if name is not None:
        raise UsageError(f"{name}: {why}: leave it out")


def refuse_without_decisions(options: Mapping[str, bool], decisions: int) -> None:
    """Raise UsageError for the first of `options`, about token pass, that is given for a model without decisions."""
    name = _first_given(options)
    if name is not None:
        check_decides(decisions, name)


def _first_given(options: Mapping[str, bool]) -> str | None:
    return next((name for name, given in options.items() if given), None)
