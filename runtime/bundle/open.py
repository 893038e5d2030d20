"""Opening a bundle: nothing in it is used before its schema, paths, sizes and hashes are checked, and that it makes sense."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from dovit.runtime.bundle.check import check_manifest
from dovit.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest, Step
from dovit.runtime.errors import DovitError


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
    """Read and check the bundle in the folder `path`. Raises DovitError with what disagrees and how to mend it."""
    root = Path(path)
    bundle = Bundle(root, read_manifest(root))
    for name, entry in bundle.manifest.files.items():
        _check_path(root, name)
        file = bundle.path(name)
        if not file.is_file():
            raise DovitError(f"{root}: the bundle's file {name} is missing; export the bundle again")
        if file.stat().st_size != entry.size:
            raise DovitError(
                f"{root}: {name} has {file.stat().st_size} bytes, the manifest says {entry.size}; export again"
            )
        if sha256(file) != entry.sha256:
            raise DovitError(f"{root}: {name} is not the file that was exported (its SHA-256 differs); export again")
    used = [(step.name, step.onnx) for step in bundle.manifest.steps if step.onnx is not None]
    used += [(step.name, step.plan.file) for plans in bundle.manifest.plans for step in plans.steps if step.plan]
    for step_name, name in used:
        if name not in bundle.manifest.files:
            raise DovitError(f"{root}: step {step_name} uses {name}, which the manifest does not list")
    check_manifest(bundle.manifest, root / MANIFEST_NAME)
    return bundle


def read_manifest(root: Path) -> Manifest:
    """The manifest of the folder `root`, its schema checked, its files not."""
    file = root / MANIFEST_NAME
    try:
        content = json.loads(file.read_bytes())
        version = content["schema_version"]
        if not isinstance(version, int):
            raise TypeError("schema_version is not a number")
    except (FileNotFoundError, NotADirectoryError):
        raise DovitError(
            f"{root}: not a dovit bundle (no {MANIFEST_NAME}); make one with dovit-export --ckpt model.pth --out {root}"
        ) from None
    except OSError as error:
        raise DovitError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DovitError(f"{file}: not a dovit manifest ({error}); export the bundle again") from None
    if version > SCHEMA_VERSION:
        raise DovitError(
            f"{file}: schema version {version} is newer than this dovit reads ({SCHEMA_VERSION}); upgrade dovit"
        )
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DovitError(f"{file}: the field {where} is wrong ({first['msg']}); export the bundle again") from None


def sha256(file: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_path(root: Path, name: str) -> None:
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts
    if escapes or not (root / name).resolve().is_relative_to(root.resolve()):
        raise DovitError(f"{root}: the manifest names {name!r}, which leaves the bundle; do not use this bundle")
