"""The CUDA kernels of the token pass and the TensorRT plugins that call them.

`kernels/` has the sources of the kernels that decide, gather, merge and reconstruct; their logic is tested on the host. Nothing
installs them yet: `left_out` says what this installation goes without, and why; `load` will load the library.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import NoReturn

from dovit.runtime.errors import DovitError

__all__ = ["left_out", "library", "load"]


def library() -> Path | None:
    """The compiled plugin library, which a TensorRT plan can carry; None where this installation has none."""
    return None


def left_out() -> str:
    """What this installation goes without, and why, as CMake found it when dovit was installed."""
    note = resources.files("dovit.plugins").joinpath("left_out.txt")
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    return "CUDA plugins and kernels: dovit was installed without its native parts (DOVIT_PYTHON_ONLY)"


def load() -> NoReturn:
    """Raise: no plugin library exists yet."""
    raise DovitError(f"this dovit has no plugin library; left out: {left_out()}")
