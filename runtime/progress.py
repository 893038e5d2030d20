"""The callback by which long operations report their progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with a description of the current stage and, where known, the fraction of it that is done."""

    def __call__(self, text: str, fraction: float | None = None) -> None:
        """`fraction` lies within 0…1."""


def no_progress(text: str, fraction: float | None = None) -> None:
    """A Progress that ignores all reports."""
