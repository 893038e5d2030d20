"""Values as they are typed: what is no number, and numbers that no integer type holds."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
import typer

from dovit.export.checkpoints.literals import set_value
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.values import parse_capabilities, parse_numbers, parse_shares, parse_size, parse_thresholds
from dovit.runtime.errors import MAX_LENGTH, UsageError


def test_sizes() -> None:
    assert parse_size("512x1024", "--size") == (512, 1024)
    assert parse_size("0512×64", "--size") == (512, 64)
    assert parse_size("64", "--size") == (64, 64)
    assert parse_size(None, "--size") is None


# Python converts at most 4300 digits to an integer; `²` is a digit to str.isdigit() and none to int()
@pytest.mark.parametrize("text", ["1" * 5000, f"1x{'1' * 5000}", "0", "64x0", "64x00", "²", "64x", "-1", "1.5"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give HEIGHTxWIDTH in pixels"):
        parse_size(text, "--size")


@pytest.mark.parametrize("text", ["8", "1" * 5000 + ".0", "8.²"])
def test_invalid_compute_capabilities_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"give numbers such as 8\.9"):
        parse_capabilities([text])


@pytest.mark.parametrize("text", ["3,,6", "3, ,6", ",3", "3,", ",", "", " "])
def test_lists_with_an_empty_entry_are_refused(text: str) -> None:
    """By the whole value, and not by another that goes before it."""
    for parse in (
        lambda: parse_numbers(text, int, "--numbers"),
        lambda: parse_thresholds(["0.9", text]),
        lambda: parse_shares(text, "--shares"),
        lambda: parse_capabilities(["8.9", text]),
    ):
        with pytest.raises(UsageError, match=rf"^--[a-z-]+ {re.escape(text)}: .*give"):
            parse()


@pytest.mark.parametrize("text", ["3,6", " 3 6", "3 ,  6 ", "3\t6"])
def test_lists_of_numbers(text: str) -> None:
    assert parse_numbers(text, int, "--numbers") == (3, 6)


@pytest.mark.parametrize("place", ["²", "1" * 5000, "2", "-1", ""])
def test_invalid_list_indices_are_refused(place: str) -> None:
    with pytest.raises(UsageError, match="is no place in a list of 2"):
        set_value({"layers": [1, 2]}, f"layers.{place}", 3)


def test_the_sentence_of_a_usage_error_is_not_endless(capsys: pytest.CaptureFixture[str]) -> None:
    def command(mode: Annotated[int, typer.Option()]) -> None: ...

    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["dovit-run", "--mode", "x" * 10_000])
        run_command(command, "dovit-run")
    line = capsys.readouterr().err
    assert end.value.code == 2 and len(line) < MAX_LENGTH + 100
    assert line.startswith("dovit-run: error: ") and line.endswith("see dovit-run --help\n")
