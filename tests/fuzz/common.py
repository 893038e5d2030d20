"""What the fuzz drivers share: mutations of bytes and of JSON-like values, and what a driver and a finding are.

A driver is a module of this folder with a function `driver(folder)` that makes its seed files in `folder` and returns
a `Driver`. Its `attempt` makes one mutant from a random generator and hands it to the code under test. Anything that it
raises other than a DovitError is a finding; so are crashes, more than 10 s, and more than 2 GB (`fuzz.run` watches).
"""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from random import Random
from typing import Any, Protocol

DRIVERS = ("checkpoint", "bundle", "image", "arguments")
SECONDS_LIMIT = 10.0
BYTES_LIMIT = 2 << 30
SENTENCE_LIMIT = 4000  # characters: an error may list a dozen names, not a whole file
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # what must not reach a terminal


class Driver(Protocol):
    """One boundary: files or arguments of one kind."""

    def attempt(self, random: Random, folder: Path) -> str:
        """Try one mutant, with files in the empty `folder`. Returns a word on what came of it, for the statistics;
        raises DovitError where it was refused."""


class Finding(Exception):
    """What a driver raises where the code under test did wrong without an exception."""


def check_sentence(text: str) -> None:
    """Raise Finding unless `text` is fit to be printed as an error: one line, no terminal codes, not endless."""
    if not text.strip():
        raise Finding("an error without a sentence")
    found = CONTROL.search(text)
    if found:
        raise Finding(f"the sentence holds the control character {found[0]!r}: {text[:300]!r}")
    if "internal error" in text or "Traceback" in text:
        raise Finding(f"the sentence quotes another library's exception: {text[:300]!r}")
    if len(text) > SENTENCE_LIMIT:
        raise Finding(f"the sentence has {len(text)} characters: {text[:300]!r}")


def mutate_bytes(data: bytes, random: Random, most: int = 8) -> bytes:
    """`data` after one to `most` small changes: bits, bytes, integers, cuts, insertions, repetitions."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 3, most])):
        _change_bytes(changed, random)
    return bytes(changed)


def _change_bytes(data: bytearray, random: Random) -> None:
    size = len(data)
    at = random.randrange(size + 1) if random.random() < 0.7 else random.randrange(min(size, 512) + 1)
    length = min(random.choice([1, 2, 4, 8, 16, 64, 1024]), size - at)
    kind = random.randrange(9)
    if kind == 0 and size:
        data[at % size] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[at : at + length] = random.randbytes(length)
    elif kind == 2:  # an integer at the edge of its type
        width = random.choice([1, 2, 4, 8])
        edge = 1 << (8 * width - random.randrange(2))
        value = random.choice([0, 1, edge - 1, edge // 2, edge - random.randrange(1, 17)]) % (1 << 8 * width)
        data[at : at + width] = value.to_bytes(width, random.choice(["little", "big"]))
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = random.randbytes(random.choice([1, 2, 4, 64]))
    elif kind == 5:
        del data[at:]
    elif kind == 6:  # repeat a part
        data[at:at] = bytes(data[at : at + length]) * random.choice([1, 2, 100])
    elif kind == 7:  # a part from elsewhere
        source = random.randrange(size + 1)
        data[at : at + length] = data[source : source + length]
    else:
        data[at : at + length] = bytes([random.choice([0, 0xFF, 0x7F, 0x80])]) * length


STRANGE_TEXTS = (
    "",
    " ",
    "a",
    "../x",
    "/etc/passwd",
    "\0",
    "\n",
    "\x1b]0;title\x07",
    "\x1b[31mred",
    "\x9b2J",
    "\u202e\u2028",
    "\ud800",
    "é" * 300,
    "x" * 100_000,
    "nan",
    "1e400",
    "-1",
    "NaN",
    "[" * 2000,
    "%s%n",
    "{}",
    "[red]",
    "a.b",
    "1" * 5000,
)
STRANGE_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    16,
    255,
    256,
    257,
    1000,
    32767,
    32768,
    65536,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**9,
    10**30,
    -(2**31),
    -(2**63),
    0.0,
    -0.0,
    0.5,
    1.5,
    1e-45,
    1e38,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
)


def strange_value(random: Random) -> Any:
    """A value that JSON can hold, of any type; now and then deep or large."""
    return random.choice(
        [
            lambda: random.choice(STRANGE_TEXTS),
            lambda: random.choice(STRANGE_NUMBERS),
            lambda: random.choice([None, True, False, [], {}, [[]], [None], {"": None}]),
            lambda: [random.choice(STRANGE_NUMBERS)] * random.choice([1, 2, 3, 4, 10_000]),
            lambda: _nested(random.choice([3, 50, 2000, 50_000])),
        ]
    )()


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def mutate_json(value: Any, random: Random, changes: int = 3) -> Any:
    """A copy of dictionaries, lists and plain values with one to `changes` of them altered, removed, added or swapped."""
    whole = [copy.deepcopy(value)]  # the value itself can be altered as well
    for _ in range(random.randint(1, changes)):
        places = list(_places(whole))
        container, key = random.choice(places)
        old = container[key]
        kind = random.randrange(8)
        if kind == 0 and container is not whole:
            del container[key]
        elif kind == 1 and isinstance(container, list) and container is not whole:
            container[key:key] = [copy.deepcopy(old)] * random.choice([1, 2, 1000])
        elif kind == 2 and isinstance(container, dict):
            container[random.choice(STRANGE_TEXTS)] = strange_value(random)
        elif kind == 3 and isinstance(old, int | float) and not isinstance(old, bool):
            container[key] = old * random.choice([-1, 2, 1000, 10**6]) + random.choice([-1, 0, 1, 0.5])
        elif kind == 4:
            other, name = random.choice(places)
            container[key] = copy.deepcopy(other[name]) if _size(other[name]) < 10_000 else None
        elif kind == 5 and isinstance(old, str):
            container[key] = mutate_text(old, random)
        else:
            container[key] = strange_value(random)
    return whole[0]


def mutate_text(text: str, random: Random) -> str:
    """`text` with characters cut, repeated or put in."""
    at = random.randrange(len(text) + 1)
    middle = random.choice(["", random.choice(STRANGE_TEXTS), text])
    return text[:at] + middle + text[at + random.choice([0, 0, 1, 5]) :]


def _places(whole: list[Any]) -> Any:
    """Every (container, key), without recursion: values may be deeper than Python's stack."""
    stack: list[Any] = [whole]
    while stack:
        container = stack.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            yield container, key
            if isinstance(value, dict | list) and value:
                stack.append(value)


def _size(value: Any) -> int:
    return sum(1 for _ in _places([value]))
