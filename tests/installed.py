"""Packages that some tests need: a test is skipped where its package is not installed, and fails where it cannot be imported."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest


def require(package: str, *others: str) -> Any:
    """The imported module `package`. Skips the test, or the module that is being collected, unless it and `others` are installed.

    pytest.importorskip would skip as well where an installed package cannot be imported.
    """
    missing = [name for name in (package, *others) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)
    return importlib.import_module(package)
