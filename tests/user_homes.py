"""Environments in which a user has a home, or none: where dovit's caches then lie."""

from __future__ import annotations

import os
import pwd

import pytest

# variables that are set of XDG_CACHE_HOME and HOME, and the cache folder above dovit/; None: that of the home in passwd
ENVIRONMENTS: list[tuple[dict[str, str], str | None]] = [
    ({"XDG_CACHE_HOME": "/xdg/", "HOME": "/home/a"}, "/xdg"),
    ({"XDG_CACHE_HOME": "", "HOME": "/home/a"}, "/home/a/.cache"),
    ({"HOME": "/"}, "/.cache"),
    ({"HOME": ""}, None),
    ({}, None),
]


def set_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with neither a variable nor an entry in passwd, as in many containers."""

    def no_entry(user: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    set_home(monkeypatch, {})
    monkeypatch.setattr(pwd, "getpwuid", no_entry)


def home_in_passwd() -> str:
    return pwd.getpwuid(os.getuid()).pw_dir
