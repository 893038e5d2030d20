"""Names around what the host queues, for Nsight Systems, where NVIDIA's package nvtx is installed."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

DOMAIN = "dovit"


def named(name: str) -> AbstractContextManager[object]:
    """A range of this name on the calling thread; nothing without nvtx."""
    nvtx = _nvtx()
    return nullcontext() if nvtx is None else nvtx.annotate(name, domain=DOMAIN)


@cache
def _nvtx() -> Any:
    try:
        return importlib.import_module("nvtx")
    except ImportError:
        return None
