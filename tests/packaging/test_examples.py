"""The example programs in Python, with what a newcomer gives them by mistake: one sentence, and an exit status of 1 or 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT
from PIL import Image

EXAMPLES = ROOT / "examples"


def example(name: str, *arguments: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("draw_streets.py notes.txt", 1, "error: notes.txt/images cannot be written"),
        ("draw_streets.py scenes --count 0", 2, "error: give --count 1 or more"),
        ("draw_streets.py scenes --size 0 5", 2, "error: give --count 1 or more"),
        ("picture.py gone.png . --out sheet.png", 1, "error: gone.png: no such image"),
        ("picture.py a.png . --out sheet.png", 1, "error: a.overlay.png: no such image"),
        ("python/embed.py gone a.png", 1, "error: gone: not a dovit bundle"),
        ("python/embed.py gone", 2, "error: the following arguments are required: image"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, words: str, status: int, sentence: str) -> None:
    (tmp_path / "notes.txt").write_text("text")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    found, error = example(*words.split(), folder=tmp_path)
    assert found == status and sentence in error.splitlines()[-1] and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "notes.txt"]


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    for name in ("a.png", "a.overlay.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    status, error = example("picture.py", "a.png", ".", "--out", "sheet.fly", folder=tmp_path)
    assert status == 1 and error == "picture.py: error: sheet.fly cannot be written: unknown file extension: .fly\n"


def test_drawn_streets_are_pairs(tmp_path: Path) -> None:
    assert example("draw_streets.py", "scenes", "--count", "2", "--size", "32", "48", folder=tmp_path) == (0, "")
    for part in ("images", "labels"):
        sizes = [Image.open(file).size for file in sorted((tmp_path / "scenes" / part).iterdir())]
        assert sizes == [(48, 32)] * 2
    assert (tmp_path / "scenes" / "classes.json").exists()
