"""Many images on many machines: `Segmenter` for Ray Data's `map_batches`, and dovit-map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dovit.batch.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    """Import the class when it is first used: it needs the extra `ray`, without which dovit-map must print an error."""
    if name == "Segmenter":
        from dovit.batch.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
