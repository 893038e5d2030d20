"""Running a bundle: needs neither torch nor onnx, and does not know how the bundle was made."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dovit.runtime.errors import DovitError, UsageError

# ONNX Runtime's own builds report to Microsoft, and keep an identifier and a queue in ~/.cache/Microsoft, from the moment they
# are imported; its Privacy.md names this variable. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from dovit.runtime.loading import load
    from dovit.runtime.result import Result
    from dovit.runtime.session import Session

__all__ = ["DovitError", "Result", "Session", "UsageError", "load"]

# loaded on first use, so that programs that need only the manifest or the errors do not wait for the rest; no module may have
# one of these names, for its import would put it in the function's place
_LAZY = {"Result": "dovit.runtime.result", "Session": "dovit.runtime.session", "load": "dovit.runtime.loading"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
