"""Atomic writes of output files, and reads that accept regular files only."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dovit.runtime.errors import DovitError, OutputError, UsageError

PART_SUFFIX = ".part"
# with which nobody means to name a folder
FILE_SUFFIXES = frozenset(
    f".{suffix}"
    for names in (
        ("png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "mp4", "mkv", "mov", "avi", "webm", "m4v"),
        ("json", "yml", "yaml", "csv", "svg", "npy", "parquet", "zip"),
        ("onnx", "plan", "engine", "pth", "pt", "ckpt", "safetensors"),
    )
    for suffix in names
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# what is wrong with a disk or a folder, and not with the name or the kind of one file in it
_FOR_ALL_FILES = frozenset(
    (*_DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
)
MAX_TEXT_BYTES = 64 << 20  # of a configuration, a palette


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary file to write to, which replaces `path` when the block ends without an exception.

    Only a regular file, or nothing, is replaced: into a device, a pipe, or what standard output or error are connected to,
    the finished content is written. Raises DovitError with one sentence where that fails, an OutputError where other files there
    would fail as well; whatever is raised, a regular file `path` is as it was.
    """
    try:
        found = _stat(path)
        if found is None or _is_replaced(found):
            with _write_and_rename(real_path(path)) as part:  # of a link, what it points to is replaced
                yield part
        elif stat.S_ISDIR(found.st_mode):
            raise DovitError(f"{path}: a folder; name a file")
        else:
            with _write_and_copy(path, found) as part:
                yield part
    except OSError as error:
        raise unwritten(path, error, " and try again (nothing of it was written)") from None


def unwritten(path: Path, error: OSError, again: str = "") -> DovitError:
    """What to raise where `path` could not be written: an OutputError where other files there would fail as well. `again`: what
    to do once a full disk has space."""
    if error.errno in _DISK_FULL:
        return OutputError(f"{path}: the disk is full; free some space{again}")
    kind = OutputError if error.errno in _FOR_ALL_FILES else DovitError
    return kind(f"{path}: cannot be written: {error.strerror or error}; give another place")


def real_path(path: Path) -> Path:
    """`path` without links, as far as they lead anywhere: before Python 3.13, Path.resolve raises RuntimeError for a circle."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a zero byte in it
        return path


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8. Raises OSError as `read_regular` does, and ValueError for another encoding."""
    return read_regular(path, MAX_TEXT_BYTES).decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for all that can be wrong with it, also nesting deeper than Python's stack."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name where the disk allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_free(path: Path, needed: int, what: str, fix: str) -> None:
    """Raise OutputError now rather than after hours of work, where `needed` bytes do not fit the disk of `path`: a folder, or a
    file that is to be written. `what` takes them; `fix`: what to do about it."""
    with suppress(OSError):  # some file systems do not say
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        if needed > free:
            raise OutputError(f"{path}: {what} {needed / 1e9:.3g} GB there, and {free / 1e9:.3g} GB are free: {fix}")


@contextmanager
def made_folders(folders: Iterable[Path], flag: str) -> Iterator[None]:
    """Make `folders` where they are missing; where the block raises, those that are still empty go again. Raises DovitError where
    one cannot be made."""
    with ExitStack() as undone:
        for folder in folders:
            undone.enter_context(removed_if_empty(folder))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise DovitError(f"{folder}: cannot be made a folder ({reason}); give {flag} another one") from None
        yield


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Where the block raises, `folder` and the folders around it go again, as far as the block made them and they are empty."""
    missing = [one for one in (folder, *folder.parents) if not os.path.exists(one)]  # the innermost first
    try:  # before the first is made: an interrupt between making it and a `try` would leave it behind
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError, ValueError):
                one.rmdir()
        raise


def check_writable(folder: Path, flag: str) -> None:
    """Raise DovitError now rather than after hours of work, where no file can be put into `folder`."""
    try:
        is_folder = folder.is_dir()
    except (OSError, ValueError) as error:
        raise DovitError(f"{flag} {folder}: no path that can be written ({error})") from None
    if not is_folder:
        raise DovitError(f"{folder}: no such folder; make it, or give {flag} another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DovitError(f"{folder}: may not be written; give {flag} a place of yours")


def check_folder_name(path: Path, flag: str) -> None:
    """Raise UsageError where a folder is to be made that is named as a file is, such as `--out labels.png`."""
    if path.suffix.lower() in FILE_SUFFIXES and not os.path.isdir(path):
        raise UsageError(f"{flag} {path}: the name of a file; give a folder, such as {path.with_suffix('')}")


def check_output(path: Path, flag: str) -> None:
    """Raise DovitError or UsageError now rather than after hours of work, where `atomic_write` could not write to `path`."""
    try:
        found = _stat(path)
    except OSError as error:
        raise DovitError(f"{flag} {path}: cannot be written: {error.strerror or error}") from None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{flag} {path}: a folder; name a file")
    if found is None or _is_replaced(found):
        check_writable(path.absolute().parent, flag)
    elif not os.access(path, os.W_OK):
        raise DovitError(f"{flag} {path}: may not be written; give {flag} a place of yours")


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Reading a pipe would wait for a writer, and a device may have
    no end, so those are refused. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would wait as well
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        check_regular(os.fstat(descriptor), path)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
    return content


def check_regular(found: os.stat_result, path: Path) -> None:
    """Raises OSError where `found`, which `os.stat` says of `path`, is a pipe, device, socket or folder."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe or device, not a regular file", str(path))


def sync_file(path: Path) -> None:
    """A file's or a folder's content onto the disk, so that it outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _stat(path: Path) -> os.stat_result | None:
    """What `path` is, links followed; None where there is nothing. Raises OSError for a path that cannot be."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def _is_replaced(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and _standard_stream(found) is None


def _standard_stream(found: os.stat_result) -> int | None:
    """The descriptor among standard output and error that is connected to the same, as that of /dev/stdout is."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), found):
                return descriptor
    return None


@contextmanager
def _write_and_rename(path: Path) -> Iterator[Path]:
    coded = os.fsencode(path.name)[:200]  # names have 255 bytes at most
    name = coded.decode(sys.getfilesystemencoding(), errors="ignore")
    part = path.with_name(f".{name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        part.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else part).stat().st_mode)
        yield part
        part.chmod(mode)  # some writers make a file of their own, which only its owner may read
        sync_file(part)  # or a power cut could leave the new name with nothing in it
        os.replace(part, path)
        with suppress(OSError):  # the rename as well, where the folder may be read
            sync_file(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _write_and_copy(path: Path, found: os.stat_result) -> Iterator[Path]:
    """Writers seek and rename, which a pipe cannot: they get a file, and what it holds in the end is written to `path`."""
    with tempfile.TemporaryDirectory(prefix="dovit-") as folder:
        part = Path(folder) / f"output{PART_SUFFIX}"
        part.touch()
        yield part
        stream = _standard_stream(found)
        if stream is None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        else:  # the same place in the file as what was printed before
            for printed in (sys.stdout, sys.stderr):
                if printed is not None and not printed.closed:
                    printed.flush()
            descriptor = os.dup(stream)
        with os.fdopen(descriptor, "wb") as target, part.open("rb") as source:
            shutil.copyfileobj(source, target)
