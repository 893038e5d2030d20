"""Commands whose outputs are full or closed: one sentence, the right status, and no file gets what was printed."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from dovit.runtime.cli.output import stage_progress
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


def test_a_long_stage_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dovit.runtime.cli.output.LINE_EVERY", 0.0)
    with stage_progress() as progress:
        for text, fraction in (
            ("fitting: lens", 0.0),
            ("fitting: lens", 0.25),
            ("fitting: head", None),
            ("checking", None),
        ):
            progress(text, fraction)
    assert capsys.readouterr().err.splitlines() == ["fitting", "fitting: lens, 25%", "checking"]


# what each kind of progress shows, and a line for stdout meanwhile that is longer than a terminal is wide
PROGRESS = """
import time
from pathlib import Path
from dovit.runtime.cli.output import progress_counter, stage_progress
line = "row " + "x" * 200
with stage_progress() as progress:
    for k in range(5):
        progress(f"first stage: part {k}", k / 5)
        print(line)
        time.sleep(0.05)
    progress("second stage")
with progress_counter() as counter:
    for _ in counter(range(3), 3, "evaluating"):
        print(line)
"""
TRAINING = """
from pathlib import Path
from dovit.training.log import Log
with Log(Path("."), 3, 0, quiet=False) as log:
    for step in range(3):
        log.write(step, {"loss": 1.5})
        log.advance(step + 1)
        print("row " + "x" * 200)
"""
LINES = {
    "progress": (PROGRESS, 8, ["first stage", "second stage", "evaluating: 3 images"]),
    "training": (TRAINING, 3, [f"step {k}/3: loss 1.500" for k in (1, 2, 3)]),
}
FORCED = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm"}


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("forced", [{}, FORCED], ids=["plain", "colours forced"])
def test_progress_in_a_pipe_is_lines(what: str, forced: dict[str, str], tmp_path: Path) -> None:
    """No cleared lines, whatever rich takes a pipe for: many build servers set FORCE_COLOR."""
    program, rows, lines = LINES[what]
    environment = {k: v for k, v in os.environ.items() if k not in FORCED} | forced
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("row " + "x" * 200 + "\n") * rows
    assert [text.split(", ")[0] for text in done.stderr.split("\n")] == [*lines, ""]


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_what_is_printed_below_a_bar_goes_to_stdout(what: str, terminal: str, tmp_path: Path) -> None:
    """stderr is a terminal, stdout is none. One that cannot move its cursor gets lines instead of a bar."""
    program, rows, lines = LINES[what]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in FORCED} | {"TERM": terminal}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=120,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0, shown
    assert done.stdout.decode() == ("row " + "x" * 200 + "\n") * rows
    assert ("\x1b[2K" in shown) == (terminal == "xterm")
    if terminal == "dumb":
        assert [text.split(", ")[0] for text in shown.split("\r\n")] == [*lines, ""]
