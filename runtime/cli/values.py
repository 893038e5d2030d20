"""Parses option values: numbers, sizes, shares and thresholds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from dovit.runtime.errors import UsageError

T = TypeVar("T", int, float)


def split_list(text: str) -> list[str]:
    """The entries of `1,2,3` or `1 2 3`; of `1,,3` one is empty."""
    return re.split(r"\s*,\s*|\s+", text.strip())


def parse_numbers(text: str | None, kind: Callable[[str], T], flag: str) -> tuple[T, ...] | None:
    """`1,2,3` or `1 2 3`; None stays None. Raises UsageError naming `flag`."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in split_list(text))
    except ValueError:
        example = ", as 0.98,0.97,0.96" if flag == "--threshold" else ""
        raise UsageError(f"{flag} {text}: give numbers separated by commas{example}") from None


def parse_size(text: str | None, flag: str) -> tuple[int, int] | None:
    """`512x1024` or one number for a square: (height, width). Raises UsageError naming `flag`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})(?:[x×,]([0-9]{1,9}))?", text.strip())
    if not match or not int(match[1]) or not int(match[2] or 1):
        raise UsageError(f"{flag} {text}: give HEIGHTxWIDTH in pixels, as 512x1024, or one number")
    return int(match[1]), int(match[2] or match[1])


def parse_channels(text: str | None, flag: str, *, positive: bool = False) -> tuple[float, float, float] | None:
    """Three numbers, one a channel, or one number for all. Raises UsageError naming `flag`."""
    values = parse_numbers(text, float, flag)
    if values is None:
        return None
    if len(values) not in (1, 3) or not all(math.isfinite(v) and (v > 0 or not positive) for v in values):
        raise UsageError(
            f"{flag} {text}: give three{' positive' if positive else ''} numbers, one a channel, or one for all"
        )
    return values[0], values[-2 % len(values)], values[-1]


def parse_thresholds(texts: Sequence[str] | None) -> tuple[float, ...] | None:
    """ξ for all decisions or one each, within [0, 1]; `0.98,0.97`, or the flag repeated. Raises UsageError."""
    if not texts:
        return None
    values = tuple(value for text in texts for value in parse_numbers(text, float, "--threshold") or ())
    for value in values:
        if not 0 <= value <= 1:
            raise UsageError(f"--threshold {value:g} lies outside [0, 1]; 1 stops no token")
    return values


def parse_share(text: str | None, flag: str) -> float | None:
    """`0.005` or `0.5%`; None stays None. Raises UsageError naming `flag`."""
    if text is None:
        return None
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise UsageError(f"{flag} {text}: not a share; give it as 0.5 or 50%") from None


def parse_shares(text: str | None, flag: str) -> tuple[float, ...] | None:
    """`0.5,0.35,0.25` or `50%,35%,25%`; None stays None. Raises UsageError naming `flag`."""
    try:
        return None if text is None else tuple(parse_share(part, flag) or 0.0 for part in text.split(","))
    except UsageError:
        raise UsageError(f"{flag} {text}: not shares; give them as 0.5,0.35,0.25 or 50%,35%,25%") from None


def parse_capabilities(texts: list[str] | None) -> tuple[str, ...]:
    """`8.9,12.0`, or the flag repeated. Raises UsageError."""
    parts: list[str] = []
    for text in texts or ():
        parts += split_list(text)
        if not all(re.fullmatch(r"[0-9]{1,3}\.[0-9]", part) for part in parts):
            raise UsageError(f"--compute-capability {text}: give numbers such as 8.9, separated by commas")
    return tuple(dict.fromkeys(parts))
