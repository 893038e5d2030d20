"""What becomes of the words of libraries in our sentences."""

import pytest

from dovit.runtime.errors import clipped, first_line

MINIZ = (  # torch 2.13's, of a file that is cut short
    "PytorchStreamReader failed reading zip archive: failed finding central directory. This is an internal miniz error. "
    "If you are seeing this error, there is a high likelihood that your checkpoint file is corrupted. This can happen if "
    "the checkpoint was not saved properly, was transferred incorrectly, or the file was modified after saving."
)


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("short", 5, "short"),
        ("One. Two. Three", 10, "One. Two"),
        ("One. Two. Three", 9, "One. Two"),
        ("One. Two. Three", 7, "One. …"),
        ("One. Two. Three", 6, "One"),
        ("1. first do this", 15, "1. first do …"),
        ("Cannot read e.g. the thing and others", 34, "Cannot read e.g. the thing and …"),
        (". z z", 4, ". …"),
        ("at " + "x" * 20, 10, "at xxxxx …"),
        ("one two three", 11, "one two …"),
        ("x" * 20, 10, "xxxxxxxx …"),
    ],
)
def test_endless_words_end_with_a_sentence_or_a_word(text: str, most: int, expected: str) -> None:
    assert clipped(text, most) == expected and len(expected) <= most


def test_the_first_line_of_an_error() -> None:
    assert first_line(RuntimeError(MINIZ + "\nException raised from valid at …")) == (
        "PytorchStreamReader failed reading zip archive: failed finding central directory. This is an internal miniz error"
    )
    assert first_line(ValueError(" \n")) == "ValueError" and first_line(OSError("a\nb")) == "a"
