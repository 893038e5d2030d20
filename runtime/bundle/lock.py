"""A file lock that lets one process at a time write to a folder: a bundle (exports, plans added with --engine, calibration), a
model repository, what dovit-map makes, a training run."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import removed_if_empty

LOCK_NAME = ".dovit-lock"


@contextmanager
def writer_lock(folder: Path, *, make: bool = False, wait: bool = True, required: bool = True) -> Iterator[None]:
    """Hold the writer lock of `folder`; `make`: create the folder if it is missing, and remove it again where the block raises
    and leaves it empty.

    While another process holds the lock, logs a warning and waits without a time limit; without `wait`, raises UsageError. The
    operating system releases the lock when a process ends, also when it is killed. Readers need no lock: see
    `dovit.runtime.bundle.open.with_bundle`.
    Raises OSError if the lock file cannot be created, DovitError if the file system does not support locks; where the lock is
    not `required`, logs a warning and goes on without it.
    """
    with ExitStack() as undone:
        if make:
            undone.enter_context(removed_if_empty(folder))
        descriptor = _acquire(folder, make=make, wait=wait, required=required)
        try:
            yield
        finally:
            # while it is still held: a waiting process sees that the file was replaced, and makes another
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()
            os.close(descriptor)


def _acquire(folder: Path, *, make: bool, wait: bool, required: bool) -> int:
    path = folder / LOCK_NAME
    while True:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            if make:  # another process failed and took its folder away in between
                continue
            raise
        try:
            _lock(descriptor, folder, wait=wait, required=required)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode())  # for the message of processes that wait
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    # for writing, as network file systems want it for a lock that excludes others
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _lock(descriptor: int, folder: Path, *, wait: bool, required: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "(starting)"
        if not wait:
            raise UsageError(
                f"{folder}: process {holder} is writing there; give another folder, or wait until it is done"
            ) from None
        logging.getLogger("dovit").warning(
            "%s: process %s is writing there; waiting until it is done (Ctrl-C gives up and changes nothing)",
            folder,
            holder,
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        what = (
            f"{folder}: the file system there cannot lock files ({error.strerror}), and two writers at once would lose what they "
            "write"
        )
        if required:
            raise DovitError(f"{what}; write to a local folder and copy it") from None
        logging.getLogger("dovit").warning("%s; see to it that no other one writes there", what)
