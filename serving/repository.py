"""Writes a bundle into a model repository of Triton: `NAME/config.pbtxt`, `NAME/VERSION/model.py` and `NAME/VERSION/bundle/`.

A version is written into a folder beside the model and renamed into place, so that a server that polls the repository never
sees a part of one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dovit.runtime.bundle.lock import writer_lock
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle, read_manifest, with_bundle
from dovit.runtime.bundle.write import copy_files, write_manifest
from dovit.runtime.errors import DovitError, UsageError
from dovit.serving.config import MARK, Serving, config_text, inputs_of, outputs_of

CONFIG, MODEL_FILE, BUNDLE = "config.pbtxt", "model.py", "bundle"
STAGE_PREFIX = ".dovit-serve-"
REPLACED = ".replaced"  # in a stage, beside the new model, whose name never begins so
MAX_VERSION = 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_MODEL_TEXT = '''"""Written by dovit-serve: Triton's Python backend loads this file, and dovit runs the bundle beside it."""

import site

# folders with packages besides those of the server's own Python, which is started without PYTHONPATH and virtual environments
for folder in {folders}:
    site.addsitedir(folder)

try:
    from dovit.serving.model import TritonPythonModel
except ModuleNotFoundError as error:
    raise ImportError(
        f"the Python of this server has no module {{error.name}}: install dovit there, or give dovit-serve "
        "--site-packages FOLDER (docs/triton.md)"
    ) from None

__all__ = ["TritonPythonModel"]
'''


def add_model(
    engine: Path,
    repository: Path,
    name: str,
    serving: Serving,
    *,
    version: int = 1,
    replace: bool = False,
    site_packages: Sequence[Path] = (),
) -> Manifest:
    """Put the bundle in `engine` into `repository` as `version` of the model `name`, and write the model's config.pbtxt.

    `site_packages`: folders in which the server's Python looks for dovit. The bundle's files are linked where the disk allows it,
    else copied. With `replace` the version may be there already. Raises UsageError for a name or version that cannot be or is
    taken, DovitError where the bundle does not open or the repository cannot be written; whatever is raised, the model is as it
    was.
    """
    check_name(name)
    if not 1 <= version <= MAX_VERSION:
        raise UsageError(f"version {version}: Triton's versions are whole numbers from 1 to {MAX_VERSION}")
    if repository.exists() and not repository.is_dir():
        raise UsageError(f"{repository} is a file: give --repository a folder")
    text = _MODEL_TEXT.format(folders=[str(folder.absolute()) for folder in site_packages])
    files = _Files(name, version, serving, text)
    return with_bundle(engine, lambda bundle: _add(bundle, repository / name, files, replace))


def check_name(name: str) -> None:
    """Raise UsageError where this cannot be a model's name, which is a folder's and a part of URLs."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: give letters, digits, _, - and ., not starting with one of those three, at most 200"
        )


@dataclass(frozen=True)
class _Files:
    """What is written beside the bundle."""

    name: str
    version: int
    serving: Serving
    model_text: str

    def write(self, stage: Path, bundle: Bundle) -> Manifest:
        """The whole model into the new folder `stage`."""
        folder = stage / str(self.version)
        target = folder / BUNDLE
        target.mkdir(parents=True)
        copy_files(bundle, target, bundle.manifest.files)
        write_manifest(target, bundle.manifest)
        manifest = open_bundle(target).manifest
        (folder / MODEL_FILE).write_text(self.model_text, encoding="utf-8")
        (stage / CONFIG).write_text(config_text(self.name, manifest, self.serving), encoding="utf-8")
        return manifest


def _add(bundle: Bundle, model: Path, files: _Files, replace: bool) -> Manifest:
    repository = model.parent
    _check_place(model, files.version, bundle.manifest, replace)
    with _readable_errors(repository), writer_lock(repository, make=True):
        for left in repository.glob(f"{STAGE_PREFIX}*"):  # of a process that was killed: the lock is ours
            _recover(left, repository)
            shutil.rmtree(left)
        _check_place(model, files.version, bundle.manifest, replace)  # another process may have written it meanwhile
        stage = repository / f"{STAGE_PREFIX}{secrets.token_hex(4)}"
        try:
            manifest = files.write(stage / model.name, bundle)
            _move(stage, model, files.version)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return manifest


def _check_place(model: Path, version: int, manifest: Manifest, replace: bool) -> None:
    """Raise UsageError where the version is taken, or would not fit beside the others."""
    if not os.path.lexists(model):
        return
    if not _is_ours(model):
        raise UsageError(f"{model} is there and was not written by dovit-serve: give another --name or --repository")
    others = sorted(int(folder.name) for folder in model.iterdir() if folder.name.isdecimal() and folder.is_dir())
    if version in others and not replace:
        raise UsageError(
            f"{model}: version {version} is there: give --version {others[-1] + 1} to add one, --replace to replace it, "
            "or another --name"
        )
    for other in others:
        if other == version:
            continue
        there = read_manifest(model / str(other) / BUNDLE)
        if (inputs_of(there), outputs_of(there)) != (inputs_of(manifest), outputs_of(manifest)):
            raise UsageError(
                f"{model}: version {other} has other classes, decisions or patches, and one config.pbtxt is for all versions: "
                "give another --name"
            )


def _is_ours(model: Path) -> bool:
    try:
        with (model / CONFIG).open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(MARK)
    except OSError:
        return False


def _move(stage: Path, model: Path, version: int) -> None:
    """Move the model in `stage` into place: a new version, then its configuration. Whatever is raised, `model` is as it was."""
    made = stage / model.name
    if not model.exists():
        os.rename(made, model)
        return
    new, target, old = made / str(version), model / str(version), stage / REPLACED / str(version)
    old.parent.mkdir()
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
        os.replace(made / CONFIG, model / CONFIG)
    except BaseException:
        if (made / CONFIG).exists():  # or an interrupt came when all was in place
            if not new.exists():
                os.rename(target, new)
            if old.exists():
                os.rename(old, target)
        raise


def _recover(stage: Path, repository: Path) -> None:
    """Put back the version that a killed process has moved away, or finish what it had nearly done."""
    for made in stage.iterdir():
        model = repository / made.name
        if made.name == REPLACED or not model.exists():
            continue
        for old in (stage / REPLACED).glob("*"):
            if not (model / old.name).exists():
                os.rename(old, model / old.name)
        if [file.name for file in made.iterdir()] == [CONFIG]:  # the version is in place
            os.replace(made / CONFIG, model / CONFIG)


@contextmanager
def _readable_errors(repository: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; free some space and try again (nothing was changed)"
        else:
            reason = f"cannot be written: {error.strerror or error}; give --repository another folder"
        raise DovitError(f"{repository}: {reason}") from None
