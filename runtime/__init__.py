"""Running a bundle: needs neither torch nor onnx, and does not know how the bundle was made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dovit.runtime.errors import DovitError, UsageError

if TYPE_CHECKING:
    from dovit.runtime.result import Result
    from dovit.runtime.session import Session, load

__all__ = ["DovitError", "Result", "Session", "UsageError", "load"]

# loaded when first asked for: whoever needs only the manifest or the errors does not wait for the rest
_LAZY = {"Result": "dovit.runtime.result", "Session": "dovit.runtime.session", "load": "dovit.runtime.session"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
