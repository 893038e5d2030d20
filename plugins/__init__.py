"""The CUDA kernels of the token pass and the TensorRT plugins that call them, in one library.

`kernels/` has the kernels and their launchers, `tensorrt/` the plugins TokenDecide, TokenGather and TokenReconstruct, which
TensorRT finds in the library of `library()`. For an installation without it, `left_out()` returns the reason.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import resources
from pathlib import Path

from dovit.runtime.errors import DovitError

__all__ = ["left_out", "library", "load"]


def library() -> Path | None:
    """The compiled library, which TensorRT's plugin registry loads and a plan can carry; None where there is none."""
    found = resources.files("dovit.plugins").joinpath("libdovit_plugins.so")
    return Path(str(found)) if found.is_file() else None


def left_out() -> str | None:
    """The parts that this installation lacks, with the reason that CMake found when dovit was installed; None: it lacks none."""
    if library() is not None:
        return None
    note = resources.files("dovit.plugins").joinpath("left_out.txt")
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    return "CUDA plugins and kernels (dovit was installed without its native parts, DOVIT_PYTHON_ONLY)"


@cache
def load() -> ctypes.CDLL:
    """The library, loaded into this process. Raises DovitError where there is none or it cannot be loaded."""
    path = library()
    if path is None:
        raise DovitError(f"this dovit has no plugin library; left out: {left_out()}; install that, then dovit again")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DovitError(
            f"the plugin library cannot be loaded ({error}); install dovit again on this machine"
        ) from None
