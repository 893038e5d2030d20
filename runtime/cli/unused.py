"""Refuses options that nothing would come of."""

from __future__ import annotations

from collections.abc import Mapping

from dovit.runtime.errors import UsageError


def refuse_unused(options: Mapping[str, bool], why: str) -> None:
    """Raise UsageError for the first of `options` that is given, where a command could only ignore it. `options`: whether each is
    given, by its name; `why`: a sentence's part."""
    name = next((name for name, given in options.items() if given), None)
    if name is not None:
        raise UsageError(f"{name}: {why}: leave it out")
