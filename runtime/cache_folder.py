"""Where the user's caches lie: built plans, compiled kernels, what was measured.

runtime/cpp/cache_folder.cpp has the same rules, because each runtime reads what the other keeps.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def cache_folder(kind: str) -> Path | None:
    """`$XDG_CACHE_HOME/dovit/KIND`, or the same in ~/.cache; None for a user who has no home, in the environment or in passwd.
    It need not exist."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "dovit" / kind
    home = os.environ.get("HOME") or _home_in_passwd()
    return Path(home) / ".cache" / "dovit" / kind if home else None


def _home_in_passwd() -> str:
    """Services of systemd run without HOME, users of many containers without an entry."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
