"""Folders that tests share: made once for all processes of a run, or compiled and kept in build/tests until sources change."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "build" / "tests"
RUN = "DOVIT_TEST_RUN"  # the folder that the processes of a run share; tests/conftest.py sets it


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file`, which other processes, and other threads of this one, wait for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run. The first process that asks lets `make` fill it; the others wait. Leave it as it is."""
    if RUN not in os.environ:  # outside pytest
        os.environ[RUN] = tempfile.mkdtemp(prefix="dovit-tests-")
    return _filled(Path(os.environ[RUN]) / name, make)


def compiled(name: str, sources: Iterable[Path], make: Callable[[Path], object], *settings: str) -> Path:
    """A folder with what `make` compiles from `sources` with `settings`, such as flags. It is kept for later runs; folders that
    were compiled from other sources are removed."""
    content = hashlib.sha256(repr(settings).encode())
    for source in sorted(sources):
        content.update(source.read_bytes())
    folder = COMPILED / f"{name}-{content.hexdigest()[:16]}"
    if not folder.exists():
        for old in COMPILED.glob(f"{name}-" + "[0-9a-f]" * 16):
            shutil.rmtree(old, ignore_errors=True)
    return _filled(folder, make)


def _filled(folder: Path, make: Callable[[Path], object]) -> Path:
    if folder.exists():
        return folder
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            make(part)
            part.rename(folder)
    return folder
