"""Writing a bundle: at any instant the target folder holds the old bundle or the new one, whole."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dovit.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from dovit.runtime.bundle.open import Bundle, read_manifest
from dovit.runtime.errors import DovitError
from dovit.runtime.files import link_or_copy

STAGE_PREFIX = ".dovit-export-"


def write_bundle(target: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    """Let `fill` write a bundle's files into an empty folder and return their manifest, and put them in place of the bundle
    in `target`. Other files in `target` stay as they are. `fill` may `seal` its folder to try the bundle out.

    The files' names carry their hashes, so moving them in touches none of the old ones; renaming the manifest over the
    old one is the switch; then the old bundle's files go. Raises DovitError where the folder cannot be written;
    whatever is raised, the old bundle is as it was.
    """
    with _as_sentences(target):
        if target.exists() and not target.is_dir():
            raise DovitError(f"{target} is a file: give --out a folder")
        made = _missing_folders(target)
        stage = target / f"{STAGE_PREFIX}{secrets.token_hex(4)}"
        done = False
        try:  # before the first folder is made: an interrupt between making it and a `try` would leave it behind
            target.mkdir(parents=True, exist_ok=True)
            stage.mkdir()
            manifest = fill(stage)
            seal(stage, manifest)
            old = _old_files(target)
            for name in manifest.files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(stage / name, target / name)
            os.replace(stage / MANIFEST_NAME, target / MANIFEST_NAME)
            done = True
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if not done:
                for folder in made:  # only those that this call made and that are empty again
                    with suppress(OSError):
                        folder.rmdir()
        for name in old - set(manifest.files):
            (target / name).unlink(missing_ok=True)
        return manifest


def seal(folder: Path, manifest: Manifest) -> None:
    """Make the files in `folder` a bundle that can be opened."""
    written = manifest.model_copy(update={"schema_version": SCHEMA_VERSION})  # whatever it was when it was read
    (folder / MANIFEST_NAME).write_text(written.model_dump_json(indent=1) + "\n", encoding="utf-8")


def take_files(old: Bundle, stage: Path, names: Iterable[str]) -> None:
    """Files of another bundle into `stage`: the same ones where the disk allows it, else copies."""
    for name in names:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(old.path(name), stage / name)


def _missing_folders(target: Path) -> list[Path]:
    """Folders that have to be made for `target`, innermost first."""
    return [folder for folder in (target, *target.parents) if not folder.exists()]


def _old_files(target: Path) -> set[str]:
    """The files of the bundle that is there now; none if there is none, or none that can be understood."""
    try:
        names = read_manifest(target).files
    except DovitError:
        return set()
    inside = target.resolve()
    return {name for name in names if (target / name).resolve().is_relative_to(inside)}


@contextmanager
def _as_sentences(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DovitError(
                f"{target}: the disk is full; free some space and export again (nothing was changed)"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DovitError(f"{target}: cannot be written ({error.strerror}); give --out a folder of yours") from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise DovitError(f"{target}: a part of this path is a file; give --out a folder") from None
        raise DovitError(f"{target}: cannot be written: {error.strerror or error}") from None
