"""The errors a user meets: each carries one sentence that says what is wrong and how to fix it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_LENGTH = 3000  # characters of a sentence: what comes out of a file can be of any length
# C0 and C1 control characters, line separators, those that turn the direction of text, and lone surrogates, which no
# encoding can write
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` on one line and without terminal codes: control characters as escapes (`\\x1b`).

    For whatever comes out of a file, or names one, on its way to a terminal.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shortened(text: str) -> str:
    """`text` with its middle left out where it is endless: the beginning says where, the end why."""
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH // 2]} … {text[-MAX_LENGTH // 2 :]}"


def first_line(error: BaseException) -> str:
    """What a library's error says, or its type's name, for a sentence of ours."""
    return clipped((str(error).strip().splitlines() or [type(error).__name__])[0])


def clipped(text: str, most: int = 160) -> str:
    """A library's words, which may be endless, up to their last whole sentence or word within `most` characters; up to any
    character where that would leave less than half, as the point of "1. " or "e.g. " does."""
    if len(text) <= most:
        return text
    sentences, words = text[: most + 1].rpartition(". ")[0], text[: most - 2].rpartition(" ")[0]
    if 2 * len(sentences) >= most:
        return sentences
    return f"{words if 2 * len(words) >= most else text[: most - 2].rstrip()} …"


class DovitError(Exception):
    """Something failed: the commands print the message as one line and exit with status 1."""

    exit_status = 1

    def __init__(self, sentence: str) -> None:
        """`sentence` may name files and what is in them: control characters are escaped, endless text is cut."""
        super().__init__(shortened(printable(sentence)))


class OutputError(DovitError):
    """An output cannot be written, and others beside it could not be either: no need to compute what goes there."""


class UsageError(DovitError):
    """The request itself cannot be right (a wrong flag, size or number): exit status 2."""

    exit_status = 2


def describe_validation(error: ValidationError) -> str:
    """The first thing that pydantic found wrong: which field, what it should be, and what it is."""
    first = error.errors(include_url=False, include_context=False)[0]
    where, reason, found = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, "), first["input"]
    if not where:
        return reason
    if first["type"] == "extra_forbidden":
        return f"{where}: not known to this dovit"
    shown = ""
    if found is None or isinstance(found, bool | float | str) or (isinstance(found, int) and abs(found) < 1 << 64):
        shown = f", found {(found[:40] if isinstance(found, str) else found)!r}"  # larger integers may be too long for str()
    return f"{where}: {reason}{shown}"


def describe_field(error: ValidationError, again: str, whole: str = "") -> str:
    """Which field of a file that dovit wrote cannot be taken, why, and the fix. `again`: what to make anew; `whole`: the name of
    a field that is the whole file."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or whole
    if first["type"] == "extra_forbidden":
        return f"the field {where} is not known to this dovit; upgrade dovit if a newer one wrote it, else {again}"
    return f"the field {where} is wrong ({first['msg']}); {again}"
