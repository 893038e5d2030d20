"""New thresholds and capacities into a bundle: the manifest is the old one or the new one, whole, at any instant."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dovit.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from dovit.runtime.bundle.open import read_manifest
from dovit.runtime.errors import DovitError

TEMPORARY_PREFIX = ".dovit-calibrate-"


def write_calibration(
    root: Path, expected: Manifest, thresholds: Sequence[float], capacities: Sequence[int]
) -> Manifest:
    """Replace ξ and capacities in the bundle at `root` and nothing else; the new manifest.

    `expected`: the manifest that was calibrated. Raises DovitError where the bundle is another one by now, or cannot be
    written; whatever is raised, the old manifest is as it was.
    """
    if read_manifest(root) != expected:
        raise DovitError(f"{root}: the bundle was changed meanwhile and is left as it is; calibrate again")
    fields = expected.model_dump() | {"thresholds": tuple(thresholds), "capacities": tuple(capacities)}
    manifest = Manifest.model_validate(fields)
    replace_text(root / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def replace_text(file: Path, text: str) -> None:
    """Write `text` beside `file`, to the disk, and rename it over `file`. Raises DovitError; then `file` is as it was."""
    file = file.resolve()  # of a link, what it points to is replaced
    temporary = file.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}")
    with _as_sentences(file):
        try:
            with temporary.open("x", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if file.exists():
                shutil.copymode(file, temporary)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(file.parent)


def check_writable(folder: Path, flag: str) -> None:
    """Raise DovitError now rather than after hours of work, where no file can be put into `folder`."""
    if not folder.is_dir():
        raise DovitError(f"{folder}: no such folder; make it, or give {flag} another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DovitError(f"{folder}: may not be written; give {flag} a place of yours")


def _sync_folder(folder: Path) -> None:
    """The rename to the disk as well, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@contextmanager
def _as_sentences(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DovitError(f"{file}: the disk is full; free some space and try again (nothing was changed)") from None
        raise DovitError(f"{file}: cannot be written ({error.strerror or error}); nothing was changed") from None
