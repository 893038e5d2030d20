"""Benchmarks that start processes or servers end as commands do, before they start any."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

IMAGE = str(Path(__file__).parents[2] / "assets" / "street.png")


@pytest.mark.parametrize(
    "module, arguments, status, sentence",
    [
        ("map_images", ["--engine", "none", "--image", IMAGE], 1, "none: not a dovit bundle"),
        ("map_images", ["--engine", "BUNDLE", "--image", "none.png"], 1, "none.png"),
        ("map_images", ["--engine", "BUNDLE", "--image", IMAGE, "--rounds", "0"], 2, "'--rounds'"),
        (
            "map_images",
            ["--engine", "BUNDLE", "--image", IMAGE, "--images", "2", "--cores", "3"],
            2,
            "--images 2 is less",
        ),
        ("triton_load", ["--engine", "none", "--image", IMAGE], 1, "none: not a dovit bundle"),
        ("triton_load", ["--engine", "BUNDLE", "--image", "none.png"], 1, "none.png"),
        ("triton_load", ["--engine", "BUNDLE", "--image", IMAGE, "--clients", "1,x"], 2, "--clients 1,x: give numbers"),
        ("triton_load", ["--engine", "BUNDLE", "--image", IMAGE, "--clients", "0"], 2, "--clients 0: give numbers"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    module: str,
    arguments: list[str],
    status: int,
    sentence: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, *(str(bundle) if given == "BUNDLE" else given for given in arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"dovit.benchmarks.{module}", run_name="__main__")
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (status, "") and said.err.count("\n") == 1
    assert said.err.startswith(f"python -m dovit.benchmarks.{module}: error: ") and sentence in said.err
    assert not list(tmp_path.iterdir()), "no server was installed"
