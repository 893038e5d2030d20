"""How work tells whoever waits for it what it does."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears what is being done now, and, where that is known, which share of it is done."""

    def __call__(self, text: str, fraction: float | None = None) -> None:
        """`fraction` lies within 0…1."""


def silent(text: str, fraction: float | None = None) -> None:
    """Nobody waits."""
