"""Which version of this folder's code lowered a graph: another may make other graphs of the same files."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources


@cache
def lowering_digest() -> str:
    """SHA-256 of the modules beside this one."""
    digest = hashlib.sha256()
    for file in sorted(resources.files("dovit.engines.lowering").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()
