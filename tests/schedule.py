"""How pytest-xdist distributes the tests: the tests of a file, or of an xdist_group, run in one worker, so that fixtures of a
module are set up once; and the longest start first, so that no worker is left with a long one at the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("durations.json")  # seconds of each file or group: make durations
UNKNOWN = 5.0  # seconds, of files that are new
_seconds: Counter[str] = Counter()


def by_file(config: pytest.Config, log: object) -> object:
    """The scheduler of `--dist=loadgroup`, with files for the tests that are in no group."""
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    return ByFile(config, log) if config.getoption("dist") == "loadgroup" else None


def longest_first(items: list[pytest.Item]) -> None:
    seconds = json.loads(FILE.read_text()) if FILE.exists() else {}

    def scope(item: pytest.Item) -> str:
        groups = {str(mark.args[0]) for mark in item.iter_markers("xdist_group")}  # xdist joins the names like this
        return "_".join(sorted(groups)) if groups else _scope(item.nodeid)

    items.sort(key=lambda item: -seconds.get(scope(item), UNKNOWN))


def add(report: pytest.TestReport) -> None:
    _seconds[_scope(report.nodeid)] += report.duration


def write() -> None:
    rounded = {scope: round(seconds, 1) for scope, seconds in _seconds.most_common() if seconds >= 1}
    FILE.write_text(json.dumps(rounded, indent=1) + "\n")


def _scope(nodeid: str) -> str:
    """`tests/cpp/test_x.py::test[a]@cpp`, as xdist calls a test in the group cpp → `cpp`; else the file."""
    test, at, group = nodeid.rpartition("@")
    return group if at and test and "]" not in group else nodeid.split("::")[0]
