"""Hashes of an export's inputs, so that an export of the same inputs reuses the files."""

from __future__ import annotations

import errno
import hashlib
import json
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from dovit.runtime.bundle.manifest import Source
from dovit.runtime.bundle.open import sha256
from dovit.runtime.errors import DovitError

BESIDE = ("variant.yml", "config.json", "preprocessor_config.json")  # what a reader may look for beside the checkpoint
PACKAGES = ("dovit", "numpy", "onnx", "onnx-graphsurgeon", "onnxscript", "torch")  # these make the ONNX files


def source_of(
    checkpoint: Path,
    options: dict[str, Any],
    capacities: tuple[int, ...] | None,
    palette: str | None,
    *,
    verified: bool,
    quantization: str | None = None,
) -> Source:
    """Hashes of the checkpoint, and of all else that the ONNX files depend on: the files that are read beside it, options with
    what their files hold, the code and the packages that write them; `quantization`: its own
    digest. Raises DovitError for a missing checkpoint."""
    try:
        content = _folder(checkpoint) if checkpoint.is_dir() else sha256(checkpoint)
    except FileNotFoundError:
        raise DovitError(f"{checkpoint}: no such checkpoint") from None
    except IsADirectoryError:
        raise DovitError(
            f"{checkpoint}: a folder without config.json; give --ckpt a checkpoint file, or a folder as Hugging Face's libraries "
            "write it"
        ) from None
    except OSError as error:
        raise DovitError(f"{checkpoint}: cannot be read ({error.strerror}); give --ckpt a checkpoint file") from None
    told = {
        "options": options | {"config": _settings(options.get("config")), "head": _head(options.get("head"))},
        "capacities": capacities,
        "quantization": quantization,
        "palette": _content(Path(palette)) if palette is not None and Path(palette).is_file() else palette,
        "beside": {name: _content(checkpoint.with_name(name)) for name in BESIDE},
        "code": _code_digest(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    text = json.dumps(told, sort_keys=True, default=str)
    return Source(checkpoint=content, options=hashlib.sha256(text.encode()).hexdigest(), verified=verified)


def is_same(old: Source | None, new: Source) -> bool:
    """Whether an export with `new` would write what one with `old` has written, compared with the model at least as much."""
    if old is None:
        return False
    return (old.checkpoint, old.options) == (new.checkpoint, new.options) and old.verified >= new.verified


def _folder(folder: Path) -> str:
    """Of all that a reader may take from a folder of Hugging Face's. Raises OSError."""
    names = [
        file for file in sorted(folder.iterdir()) if file.suffix in (".json", ".safetensors", ".bin") and file.is_file()
    ]
    if not names:
        raise IsADirectoryError(errno.EISDIR, "a folder", str(folder))
    hashes = {file.name: sha256(file) for file in names}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _head(file: Path | None) -> str | None:
    return None if file is None else _content(file) or str(file)


def _content(file: Path) -> str | None:
    """The file's SHA-256; None where it is missing."""
    try:
        return sha256(file)
    except OSError:  # missing, or a folder: the reader that needs it reports that
        return None


def _settings(config: Path | None) -> Any:
    """What a configuration says, the files that its `_base_` names included."""
    if config is None:
        return None
    from dovit.export.checkpoints.literals import read_config  # brings torch, which an unchanged export goes without

    try:
        return read_config(config)
    except DovitError:  # the reader reports that
        return None


def _code_digest() -> str:
    """Of the export's modules, of the bundle's description, and of the palettes that have a name."""
    digest = hashlib.sha256()
    for package in ("export", "runtime.bundle", "runtime.palettes"):
        for file in _modules(resources.files(f"dovit.{package}")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _modules(folder: Traversable) -> list[Traversable]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _modules(entry)
        elif entry.name.endswith((".py", ".json")):
            found.append(entry)
    return found
