"""Opens a bundle: its schema, paths, file sizes, hashes and consistency are checked before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from dovit.runtime.bundle.check import check_manifest
from dovit.runtime.bundle.external import external_files
from dovit.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, FileEntry, Manifest, Step
from dovit.runtime.errors import DovitError, describe_field
from dovit.runtime.files import check_regular, read_regular

T = TypeVar("T")
LOG = logging.getLogger("dovit")
MAX_MANIFEST_BYTES = 64 << 20
MAX_ONNX_BYTES = 2 << 30  # protobuf's own limit
MAX_ATTEMPTS = 20  # an export takes seconds, so a second attempt hardly ever meets another export


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    root: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where a file of the manifest lies."""
        return self.root / name

    def onnx(self, step: Step) -> Path:
        """Where a step's ONNX file lies. Raises DovitError for a bundle that holds plans only."""
        if step.onnx is None:
            there = ", ".join(plans.name for plans in self.manifest.plans)
            raise DovitError(
                f"{self.root}: holds plans only ({there}), and this needs the ONNX files: add them with "
                f"dovit-export --ckpt model.pth --out {self.root}"
            )
        return self.path(step.onnx)


def open_bundle(path: str | Path) -> Bundle:
    """Read and check the bundle in the folder `path`. Raises DovitError with what disagrees and how to fix it."""
    return with_bundle(path, lambda bundle: bundle)


def with_bundle(path: str | Path, use: Callable[[Bundle], T]) -> T:
    """Open the bundle in the folder `path` and return `use(bundle)`.

    An export may replace the bundle meanwhile and remove its old files. So if anything fails and the manifest has changed since
    it was read, the new bundle is opened instead. Raises DovitError as `open_bundle` does.
    """
    root = Path(path)
    for attempt in range(MAX_ATTEMPTS):
        before = _identity(root)
        try:
            return use(_open(root))
        except (DovitError, OSError) as error:
            if _identity(root) != before and attempt < MAX_ATTEMPTS - 1:
                LOG.debug("%s: the bundle was replaced while it was opened; opening the new one (%s)", root, error)
                continue
            if isinstance(error, OSError):
                raise DovitError(f"{root}: cannot be read: {error}") from None
            raise
    raise AssertionError("the last attempt returns or raises")


def _identity(root: Path) -> tuple[int, ...] | None:
    """Identity of the manifest's file at present; None where there is none."""
    try:
        found = os.stat(root / MANIFEST_NAME)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _open(root: Path) -> Bundle:
    bundle = Bundle(root, read_manifest(root))
    steps = {
        file: step.name for step in bundle.manifest.steps for file in (step.onnx, *step.openvino) if file is not None
    }
    used = [(f"step {name}", file) for file, name in steps.items()]
    used += [
        (f"step {step.name}", step.plan.file) for plans in bundle.manifest.plans for step in plans.steps if step.plan
    ]
    used += [(f"plan set {plans.name}", plans.program) for plans in bundle.manifest.plans if plans.program is not None]
    for name, entry in bundle.manifest.files.items():
        _check_path(root, name)
        content = _check_file(root, name, entry, whole=name in steps)
        if content is not None:
            used += [(f"step {steps[name]}", file) for file in _weights_of(root, name, content)]
    for user, name in used:
        if name not in bundle.manifest.files:
            raise DovitError(
                f"{root}: {user} uses {name}, which the manifest does not list, so nothing says what is in it; "
                "export the bundle again"
            )
    check_manifest(bundle.manifest, root / MANIFEST_NAME)
    return bundle


def _check_file(root: Path, name: str, entry: FileEntry, *, whole: bool) -> bytes | None:
    """Compare a file with its entry; its content where `whole` is wanted."""
    file = root / name
    try:
        if not file.is_file():
            raise DovitError(f"{root}: the bundle's file {name} is missing; export the bundle again")
        size = file.stat().st_size
        if size != entry.size:
            raise DovitError(f"{root}: {name} has {size} bytes, the manifest says {entry.size}; export again")
        content = read_regular(file, MAX_ONNX_BYTES) if whole else None
        found = sha256(file) if content is None else hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise DovitError(f"{root}: the bundle's file {name} is missing; export the bundle again") from None
    except OSError as error:
        raise DovitError(f"{root}: {name} cannot be read: {error.strerror or error}") from None
    if found != entry.sha256:
        raise DovitError(f"{root}: {name} is not the file that was exported (its SHA-256 differs); export again")
    return content


def _weights_of(root: Path, name: str, content: bytes) -> Iterator[str]:
    """The files, as the manifest lists them, from which the step's file `name` takes its weights: all lie beside it."""
    try:
        found = external_files(content)
    except ValueError as error:
        raise DovitError(f"{root}: {name} is not an ONNX file ({error}); export the bundle again") from None
    for location in sorted(found):
        if location in ("", ".", "..") or "/" in location or "\\" in location:
            raise DovitError(
                f"{root}: {name} takes weights from {location!r}, which is not a file beside it; do not use this bundle"
            )
        yield str(PurePosixPath(name).parent / location)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the folder `root`, its schema checked, its files not."""
    file = root / MANIFEST_NAME
    try:
        content = read_regular(file, MAX_MANIFEST_BYTES)
        version = json.loads(content.decode())["schema_version"]
        if not isinstance(version, int):
            raise TypeError("schema_version is not a number")
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isfile(root):  # bundle.json itself, or a checkpoint
            raise DovitError(
                f"{root}: a file; a bundle is the folder in which {MANIFEST_NAME} lies "
                "(dovit-export --ckpt makes one of a checkpoint)"
            ) from None
        raise DovitError(
            f"{root}: not a dovit bundle (no {MANIFEST_NAME}); make one with dovit-export --ckpt model.pth --out {root}"
        ) from None
    except OSError as error:
        raise DovitError(f"{file}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise DovitError(f"{file}: not a dovit manifest (nested too deeply); export the bundle again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DovitError(f"{file}: not a dovit manifest ({error}); export the bundle again") from None
    if version > SCHEMA_VERSION:
        raise DovitError(
            f"{file}: schema version {version} is newer than this dovit reads ({SCHEMA_VERSION}); upgrade dovit"
        )
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise DovitError(f"{file}: {describe_field(error, 'export the bundle again')}") from None


def sha256(file: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    check_regular(os.stat(file), file)  # a device has no end, and opening a pipe waits for a writer
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_path(root: Path, name: str) -> None:
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts
    try:
        escapes = escapes or not (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte in it, links in a circle
        escapes = True
    if escapes:
        raise DovitError(f"{root}: the manifest names {name!r}, which leaves the bundle; do not use this bundle")
