"""What an export was made of, so that the same again need not be made again."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from dovit.runtime.bundle.manifest import Source
from dovit.runtime.bundle.open import sha256
from dovit.runtime.errors import DovitError


def source_of(
    checkpoint: Path,
    options: dict[str, Any],
    capacities: tuple[int, ...] | None,
    palette: str | None,
    *,
    verified: bool,
) -> Source:
    """Hashes of the checkpoint, and of the options and the code that read it. Raises DovitError for a missing checkpoint."""
    try:
        content = sha256(checkpoint)
    except FileNotFoundError:
        raise DovitError(f"{checkpoint}: no such checkpoint") from None
    except OSError as error:
        raise DovitError(f"{checkpoint}: cannot be read ({error.strerror}); give --ckpt a checkpoint file") from None
    colours = Path(palette) if palette is not None else None
    config = options.get("config")
    told = {
        "options": options,
        "config": sha256(config) if config and config.is_file() else None,
        "capacities": capacities,
        "palette": sha256(colours) if colours and colours.is_file() else palette,
        "code": _code_digest(),
    }
    text = json.dumps(told, sort_keys=True, default=str)
    return Source(checkpoint=content, options=hashlib.sha256(text.encode()).hexdigest(), verified=verified)


def is_same(old: Source | None, new: Source) -> bool:
    """Whether an export with `new` would write what one with `old` has written, compared with the model at least as much."""
    if old is None:
        return False
    return (old.checkpoint, old.options) == (new.checkpoint, new.options) and old.verified >= new.verified


def _code_digest() -> str:
    digest = hashlib.sha256()
    for file in _modules(resources.files("dovit.export")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _modules(folder: Traversable) -> list[Traversable]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _modules(entry)
        elif entry.name.endswith(".py"):
            found.append(entry)
    return found
