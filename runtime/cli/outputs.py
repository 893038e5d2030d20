"""Names the output pictures of a run, and refuses to overwrite an input or the output of another image."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dovit.runtime.cli.inputs import Input
from dovit.runtime.draw import source_of
from dovit.runtime.errors import UsageError
from dovit.runtime.files import made_folders, real_path


@dataclass(frozen=True)
class Picture:
    """An image to segment: page `page` (from 1) of `pages` of a file. Its outputs are named `base` + ending."""

    file: Path
    page: int
    pages: int
    base: Path

    def __str__(self) -> str:
        return f"{self.file}, page {self.page}" if self.pages > 1 else str(self.file)

    def output(self, ending: str) -> Path:
        """The file for `.png`, `.overlay.png`, …"""
        return self.base.with_name(self.base.name + ending)

    @property
    def source(self) -> str:
        """The path of the image relative to the output's folder, which is stored in an output as its source."""
        way = os.path.relpath(real_path(self.file), real_path(self.base.parent))
        page = f", page {self.page}" if self.page > 1 else ""
        return os.fsencode(way).decode("utf-8", "replace") + page


def plan_pictures(inputs: Sequence[Input], pages: Sequence[int], out: Path, endings: Sequence[str]) -> list[Picture]:
    """Every page of every input, with a base for its outputs below `out`.

    The base is the file's stem, below the same folders as the input, and `.p2` for the second page. No two outputs are
    one file, even where case does not count: where a stem is taken, it is the file's name with its suffix, or with its
    folder's name in front, or with a number.
    """
    taken: set[str] = set()

    def free(bases: Sequence[Path]) -> bool:
        outputs = {f"{base}{ending}".casefold() for base in bases for ending in endings}
        if outputs & taken:
            return False
        taken.update(outputs)
        return True

    pictures: list[Picture] = []
    for one, count in zip(inputs, pages, strict=True):
        bases = next(bases for bases in _candidates(one, count, out) if free(bases))
        pictures += [Picture(one.file, page, count, base) for page, base in enumerate(bases, start=1)]
    return pictures


def _candidates(one: Input, count: int, out: Path) -> Iterator[list[Path]]:
    """Bases for the `count` pages of an input, the best first."""
    file = one.file
    first = [file.stem, file.name.replace(".", "_"), f"{real_path(file).parent.name}_{file.stem}"]
    for name in itertools.chain(first, (f"{file.stem}_{k}" for k in itertools.count(2))):
        base = out / one.below / name
        yield [base, *(base.with_name(f"{name}.p{page}") for page in range(2, count + 1))]


def check_outputs(pictures: Sequence[Picture], endings: Sequence[str], *, overwrite: bool) -> None:
    """Raise UsageError where writing the outputs would lose something.

    An output of the same image may be replaced, so that a command can be typed again; one of another image, or a file
    that no dovit-run wrote, only with `overwrite`; an input never.
    """
    read = {real_path(picture.file) for picture in pictures}
    for picture in pictures:
        for ending in endings:
            output = picture.output(ending)
            if real_path(output) in read:
                raise UsageError(f"{output} is an input image and would be overwritten: give --out another folder")
            if overwrite or not os.path.lexists(output):
                continue
            source = source_of(output)
            if source is None:
                raise UsageError(
                    f"{output} is there and was not written by dovit-run: give --out another folder, or --overwrite"
                )
            if source != picture.source:
                other = os.path.relpath(real_path(output).parent / source)
                raise UsageError(
                    f"{output} is there and was made from {other}: give --out another folder, or --overwrite"
                )


def output_folders(pictures: Sequence[Picture], out: Path) -> AbstractContextManager[None]:
    """The folders of the outputs, made for the block: where it raises, those that hold no output go again. Raises DovitError
    where one cannot be made."""
    return made_folders(dict.fromkeys([out, *(picture.base.parent for picture in pictures)]), "--out")
