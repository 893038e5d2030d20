"""Commands whose outputs are full or closed: one sentence, the right status, and no file gets what was printed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dovit.runtime.errors import MAX_LENGTH, DovitError, printable

FULL = Path("/dev/full")
DOVIT = [sys.executable, "-c", "from dovit.runtime.cli.main import main; main()"]


def _shell(words: str, redirections: str) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.join(DOVIT)} {words} {redirections}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "words", ["--help", "--version", "inspect --help", "inspect {bundle}", "inspect {bundle} --json"]
)
def test_a_full_output_is_one_sentence(words: str, bundle: Path) -> None:
    done = _shell(words.format(bundle=bundle), ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("dovit") and done.stderr.count("\n") == 1
    assert "the output cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("redirections", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_change_no_status(redirections: str, bundle: Path) -> None:
    assert _shell(f"inspect {bundle}", redirections).returncode == 0
    assert _shell("inspect missing", redirections).returncode == 1
    assert _shell("inspect", redirections).returncode == 2


def test_a_closed_output_gives_its_descriptor_to_no_file(bundle: Path, tmp_path: Path) -> None:
    svg = tmp_path / "chain.svg"
    assert _shell(f"inspect {bundle} --svg {svg}", ">&- 2>&-").returncode == 0
    assert svg.read_text().startswith("<svg")


def test_a_closed_pipe_ends_a_command_quietly(bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*DOVIT, "inspect", str(bundle)], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_errors_are_one_line_without_terminal_codes() -> None:
    text = "a\x1b]0;title\x07\nb\t\x9b2J\u202e\u2028\ud800 é ξ →"
    assert printable(text) == "a\\x1b]0;title\\x07\\nb\\t\\x9b2J\\u202e\\u2028\\ud800 é ξ →"
    assert str(DovitError(f"{text}: x")) == f"{printable(text)}: x"
    long = str(DovitError("first " + "x" * 10 * MAX_LENGTH + " last"))
    assert long.startswith("first ") and long.endswith(" last") and len(long) < MAX_LENGTH + 10
