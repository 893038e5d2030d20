"""Writes a bundle atomically: at any time the target folder holds either the complete old bundle or the complete new one."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dovit.runtime.bundle.lock import writer_lock
from dovit.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle, read_manifest
from dovit.runtime.bundle.program import read_program
from dovit.runtime.errors import DovitError
from dovit.runtime.files import PART_SUFFIX, link_or_copy, sync_file

STAGE_PREFIX = ".dovit-export-"
FOLDERS = ("onnx", "tensorrt", "tensorrt-rtx")
_OUR_FILE_NAMES = re.compile(r"[\w.-]+-[0-9a-f]{12}\.(onnx|weights|plan|json)")  # as exporter and builders name files


def write_bundle(target: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    """Let `fill` write a bundle's files into an empty folder and return their manifest, and put them in place of the bundle
    in `target`. Other files in `target` stay as they are. `fill` may `write_manifest` its folder to try the bundle out.

    One writer at a time: another one in `target` is waited for before `fill` is called. What writers that were killed have
    left in `target` is removed. The files' names carry their hashes, so moving them in touches none of the old ones; renaming
    the manifest over the old one is the switch; then the old bundle's files go. Everything is synced to disk before the switch,
    and was opened as a reader opens it. Raises DovitError where the folder cannot be written, or what `fill` made would not
    open; whatever is raised, the old bundle is as it was.
    """
    with _readable_errors(target):
        if target.exists() and not target.is_dir():
            raise DovitError(f"{target} is a file: give --out a folder")
        with writer_lock(target, make=True):
            _remove_leftovers(target)
            try:
                return _write(target, fill)
            finally:
                _remove_leftovers(target)


def _write(target: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    stage = target / f"{STAGE_PREFIX}{secrets.token_hex(4)}"
    stage.mkdir()
    manifest = fill(stage)
    write_manifest(stage, manifest)
    _check(target, stage, manifest)
    old = _old_files(target)
    folders = {(stage / name).parent for name in manifest.files}
    for path in (*(stage / name for name in manifest.files), *folders, stage / MANIFEST_NAME):
        sync_file(path)
    for name in manifest.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / name, target / name)
    for folder in {target, *((target / name).parent for name in manifest.files)}:
        sync_file(folder)
    os.replace(stage / MANIFEST_NAME, target / MANIFEST_NAME)
    sync_file(target)
    for name in old - set(manifest.files):
        with suppress(OSError):  # the new bundle is in place, whatever becomes of the old one's files
            (target / name).unlink()
    return manifest


def _check(target: Path, stage: Path, manifest: Manifest) -> None:
    """Raises DovitError if a reader would refuse the bundle in `stage`, so that it does not replace a bundle that opens."""
    try:
        bundle = open_bundle(stage)
        opened = bundle.manifest
        for plans in opened.plans:
            if plans.program is not None:
                read_program(bundle, plans)
    except DovitError as error:
        reason = str(error).replace(str(stage), "the new bundle")
        raise DovitError(f"{target}: what was made could not be opened, and nothing was changed ({reason})") from None
    if opened.model_copy(update={"schema_version": manifest.schema_version}) != manifest:
        raise DovitError(f"{target}: the manifest does not read as it was written; nothing was changed")


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed writer left: staging folders, and files named like ours that the manifest does not list. Requires the
    writer lock."""
    inside = target.resolve()
    for stage in target.glob(f"{STAGE_PREFIX}*"):
        if stage.is_dir() and not stage.is_symlink():
            shutil.rmtree(stage, ignore_errors=True)
    left = list(target.glob(f".{MANIFEST_NAME}.*{PART_SUFFIX}"))
    if _is_readable(target):
        named = _old_files(target)
        for folder in FOLDERS:
            if (target / folder).resolve() == inside / folder:  # not a link to elsewhere
                left += [
                    f
                    for f in (target / folder).glob("*")
                    if _OUR_FILE_NAMES.fullmatch(f.name) and f"{folder}/{f.name}" not in named
                ]
    for file in left:
        with suppress(OSError):
            file.unlink()
    for folder in FOLDERS:
        with suppress(OSError):  # only where nothing else is in it
            (target / folder).rmdir()


def _is_readable(target: Path) -> bool:
    """Whether it is known which files the bundle in `target` has: there is none, or it can be understood."""
    if not (target / MANIFEST_NAME).exists():
        return True
    try:
        read_manifest(target)
    except DovitError:
        return False
    return True


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the files in `folder` a bundle that can be opened."""
    written = manifest.model_copy(update={"schema_version": SCHEMA_VERSION})  # whatever it was when it was read
    (folder / MANIFEST_NAME).write_text(written.model_dump_json(indent=1) + "\n", encoding="utf-8")


def copy_files(old: Bundle, stage: Path, names: Iterable[str]) -> None:
    """Files of another bundle into `stage`: the same ones where the disk allows it, else copies."""
    for name in names:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        if not (stage / name).exists():  # names carry hashes: another bundle's file of the name is the same
            link_or_copy(old.path(name), stage / name)


def _old_files(target: Path) -> set[str]:
    """The files of the bundle that is there now; none if there is none, or none that can be understood."""
    try:
        names = read_manifest(target).files
    except DovitError:
        return set()
    inside = target.resolve()
    return {name for name in names if (target / name).resolve().is_relative_to(inside)}


@contextmanager
def _readable_errors(target: Path) -> Iterator[None]:
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
