"""Files that are there whole or as they were before."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dovit.runtime.errors import DovitError

PART_SUFFIX = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes the place of `path` when the block is left without an exception.

    Raises DovitError with one sentence where that fails; whatever is raised, `path` is as it was.
    """
    path = path.resolve()  # of a link, what it points to is replaced
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        part.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else part).stat().st_mode)
        yield part
        part.chmod(mode)  # some writers make a file of their own, which nobody else may read
        with part.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DovitError(f"{path}: the disk is full; free some space and try again (nothing was changed)") from None
        raise DovitError(f"{path}: cannot be written: {error.strerror or error}; give another place") from None
    finally:
        with suppress(OSError):
            part.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name where the disk allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_writable(folder: Path, flag: str) -> None:
    """Raise DovitError now rather than after hours of work, where no file can be put into `folder`."""
    if not folder.is_dir():
        raise DovitError(f"{folder}: no such folder; make it, or give {flag} another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DovitError(f"{folder}: may not be written; give {flag} a place of yours")


def _sync_folder(folder: Path) -> None:
    """The rename to the disk as well, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
