"""Both runtimes look for what is kept in the same folders, and by the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from processors import PROCESSORS
from user_homes import ENVIRONMENTS, set_home

from dovit.runtime.cache_folder import cache_folder
from dovit.runtime.openvino.records import processor

pytestmark = pytest.mark.xdist_group("cpp")

NOBODYS = 3_141_592  # a user without an entry in passwd


@pytest.fixture(scope="module")
def tool(build: Callable[[str], Path]) -> Path:
    return build("release") / "tests" / "user_cache"


def says(*command: str | Path, user: int | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, user=user).stdout[:-1]


@pytest.mark.parametrize("variables", [variables for variables, _ in ENVIRONMENTS], ids=str)
def test_the_folder(monkeypatch: pytest.MonkeyPatch, tool: Path, variables: dict[str, str]) -> None:
    set_home(monkeypatch, variables)
    for kind in ("kernels", "openvino"):
        assert Path(says(tool, "folder", kind)) == cache_folder(kind)


def test_the_folder_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tool: Path) -> None:
    """tests/runtime/test_cache_folder.py has Python's side."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a program as a user without an entry in passwd")
    set_home(monkeypatch, {})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = shutil.copy(tool, folder)  # where that user may run it
        assert says(copy, "folder", "openvino", user=NOBODYS) == "none"
        monkeypatch.setenv("HOME", "/home/a")
        assert says(copy, "folder", "openvino", user=NOBODYS) == "/home/a/.cache/dovit/openvino"


def test_the_processor(tool: Path, tmp_path: Path) -> None:
    assert says(tool, "processor", "/proc/cpuinfo") == processor() != ""
    assert says(tool, "processor", tmp_path / "none") == processor(tmp_path / "none") == ""
    for name, (content, expected) in PROCESSORS.items():
        file = tmp_path / name
        file.write_text(content)
        assert says(tool, "processor", file) == processor(file) == expected
