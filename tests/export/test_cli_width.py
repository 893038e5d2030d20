"""What commands print fits a terminal of 80 columns, with nothing cut, and comes through a pipe as plain text."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from bundles import make_bundle
from models import randomised, small_config
from rich.console import Console

from dovit.export.checkpoints import save_model
from dovit.runtime.cli.output import new_table, print_table

CUT = re.compile(r"\w…")  # a word cut short; 1…24 is a range
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMANDS = {
    "export": ("dovit.export.cli", "--ckpt", "model.safetensors", "--out", "again", "--backend", "onnxruntime"),
    "inspect": ("dovit.runtime.cli.inspect", "engines"),
    "bench": ("dovit.benchmarks.cli", "--engine", "engines", "--keep", "50%,25%", "--runs", "2", "--warmup", "0"),
    "eval": (
        "dovit.training.cli.eval",
        "--engine",
        "engines",
        "--data",
        "streets:2",
        "--sweep",
        "0.5,1",
        "--fixed-ratio",
    ),
    "calibrate": (
        "dovit.evaluation.cli.calibrate",
        "--engine",
        "engines",
        "--images",
        "data",
        "--keep",
        ".5,.2",
        "--dry-run",
    ),
}
STAGES = {"export": "tracing", "bench": "measuring", "eval": "evaluating: 2 images", "calibrate": "decision 1: 1 image"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("place")
    model = randomised(small_config(classes=19))
    save_model(model, folder / "model.safetensors")
    make_bundle(model, folder / "engines")
    (folder / "data").mkdir()
    Image.effect_noise((96, 64), 50).save(folder / "data" / "a.png")
    return folder


def program(name: str) -> list[str]:
    module, *arguments = COMMANDS[name]
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *arguments]


def in_a_terminal(place: Path, name: str, columns: int) -> tuple[str, str]:
    """What the command shows in a terminal of so many columns, and prints on stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")} | {"TERM": "xterm"}
    running = subprocess.Popen(program(name), cwd=place, env=environment, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's EIO: the other end was closed
            break
        if not part:
            break
        shown += part
    errors = running.communicate()[1].decode()
    os.close(ours)
    assert running.returncode == 0, errors
    return ANSI.sub("", shown.decode()), errors


@pytest.mark.parametrize("name", COMMANDS)
def test_tables_fit_80_columns_of_a_terminal(place: Path, name: str) -> None:
    text, errors = in_a_terminal(place, name, 80)
    tables = [block for block in re.split(r"\r?\n\s*\r?\n", text) if "───" in block]
    assert tables
    for line in (
        line for block in tables for line in block.splitlines()[1:] if not line.startswith(("speed-up:", "labels:"))
    ):
        assert len(line.rstrip()) <= 80, line
    assert not CUT.search(text.replace("pole, …", ""))
    assert name not in STAGES or STAGES[name] in errors.splitlines()  # stderr is no terminal: a line a stage


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_a_narrow_terminal_breaks_no_number(place: Path, columns: int) -> None:
    wide, narrow = (in_a_terminal(place, "calibrate", width)[0].partition("\nξ before")[0] for width in (200, columns))
    numbers = re.compile(r"(?<!\S)\d+\.\d+(?!\S)")  # those of cells: headings have none with a point
    assert numbers.findall(wide) == numbers.findall(narrow) != []
    assert ("───" in narrow) == (columns == 60)


@pytest.mark.parametrize("columns", range(14, 90, 4))
def test_every_cell_of_a_table_is_shown_at_any_width(columns: int) -> None:
    console = Console(width=columns, file=io.StringIO(), color_system=None)
    table = new_table("", "kept", "MACs\ntrue", "speed-\nup", "where", left=(0, 1, 4), text=(0, 4))
    rows = [
        ("fixed, as ξ = 0.5", "288/288/288", "100.25%", "2.17", "a/long/path/of/a/file.png"),
        ("all", "9/1/0", "32.4%", "–", ""),
    ]
    for row in rows:
        table.add_row(*row)
    print_table(console, "title", table, "note")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= columns and (lines[0], lines[-2]) == ("title", "note")
    words = " ".join(lines).split()
    assert {number for row in rows for number in row[1:4]} <= set(words)
    least = 6 + 11 + 7 + 6 + 12 + 4 * 2  # "fixed,", the numbers, 12 columns of the path, and between them
    assert any("───" in line for line in lines) == (columns >= least)


@pytest.mark.parametrize("name", ["inspect", "bench"])
def test_a_pipe_gets_plain_text(place: Path, name: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "FORCE_COLOR"} | {"COLUMNS": "20"}
    done = subprocess.run(program(name), cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert not ANSI.search(text) and "\r" not in text and not CUT.search(text.replace("pole, …", ""))
    assert "chain, keep 0.5/0.25 " in done.stdout or name != "bench"
    assert max(map(len, done.stdout.splitlines())) > 20  # COLUMNS is for terminals
