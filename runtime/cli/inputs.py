"""Resolves the image arguments of a command: files, folders, globs, and the pages of a file."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import check_regular, real_path
from dovit.runtime.images import is_url

# Suffixes of pictures; a folder's files count where the installed Pillow reads theirs as well (JPEG XL needs a plugin).
PICTURES = {
    ".apng",
    ".avif",
    ".avifs",
    ".bmp",
    ".dib",
    ".gif",
    ".j2c",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpc",
    ".jpe",
    ".jpeg",
    ".jpf",
    ".jpg",
    ".jpx",
    ".jxl",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".qoi",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}
PAGED = {"AVIF", "GIF", "PNG", "TIFF", "WEBP"}  # formats whose further pages or frames are pictures of their own


@dataclass(frozen=True)
class Input:
    """An image file, and where it lies below the folder that was named: for its output to lie there as well."""

    file: Path
    below: Path = Path()


@cache
def read_suffixes() -> frozenset[str]:
    """The suffixes in PICTURES that the installed Pillow reads."""
    Image.init()
    return frozenset(s for s, kind in Image.registered_extensions().items() if s in PICTURES and kind in Image.OPEN)


def find_inputs(
    given: Iterable[str], *, recursive: bool = False, skip: Path | None = None, must_exist: bool = False
) -> list[Input]:
    """Files, folders (the images in them, sorted) and globs as files, in the order given, each once.

    `recursive` looks into the folders' folders too, though not into `skip`, where outputs go. Raises UsageError for what
    cannot be an input: `-`, a URL, a folder without images, a glob that matches no file. A plain path need not exist:
    reading it says so, and others are still read. With `must_exist` that is a UsageError too.
    """
    found: dict[Path, Input] = {}
    for text in given:
        try:
            inputs = _expand(text, recursive, skip, must_exist)
        except (OSError, ValueError) as error:  # a name that no file can have: reading it says so
            if must_exist:
                raise UsageError(
                    f"{text}: cannot be read ({getattr(error, 'strerror', error)}); check the path"
                ) from None
            inputs = [Input(Path(text))]
        for one in inputs:
            found.setdefault(one.file, one)
    return list(found.values())


def page_count(file: Path) -> int:
    """Pages of a TIFF, frames of an animation, else 1; 1 as well for what cannot be read, since reading it will say so."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_regular(os.stat(file), file)  # opening a pipe would wait for a writer
        with Image.open(file) as image:
            return int(getattr(image, "n_frames", 1)) if image.format in PAGED else 1
    return 1


def _expand(text: str, recursive: bool, skip: Path | None, must_exist: bool) -> list[Input]:
    path = Path(text)
    if text == "-":
        raise UsageError("-: images are not read from standard input: save the image, and name the file")
    if is_url(text):
        raise UsageError(f"{text}: URLs are not fetched: download the image (curl -O), and name the file")
    if path.is_dir():
        inside = list(_in_folder(path, recursive, skip))
        if not inside:
            below = "" if recursive else " itself; --recursive looks into its folders"
            raise UsageError(f"{text}: no images in this folder{below}; name a folder with some, or a file")
        return inside
    if (there := path.exists()) or not glob.has_magic(text):
        if must_exist and not there:
            raise UsageError(f"{text}: no such file or folder; check the path")
        return [Input(path)]
    files = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]
    if not files:
        raise UsageError(f"{text}: no file matches; check the pattern")
    return [Input(file) for file in files]


def _in_folder(folder: Path, recursive: bool, skip: Path | None) -> Iterator[Input]:
    def stop(error: OSError) -> None:
        raise DovitError(f"{error.filename}: the folder cannot be read ({error.strerror})") from None

    for name, folders, files in os.walk(folder, onerror=stop):
        here = Path(name)
        folders[:] = sorted(f for f in folders if skip is None or real_path(here / f) != real_path(skip))
        for file in sorted(files):
            if Path(file).suffix.lower() in read_suffixes() and (here / file).is_file():
                yield Input(here / file, here.relative_to(folder))
        if not recursive:
            return
