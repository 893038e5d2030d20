"""What the commands write: JSON with any file's name in it, and nothing over what they read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dovit.evaluation.data import Dataset
from dovit.evaluation.data.pairs import Pairs
from dovit.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from dovit.runtime.errors import UsageError
from dovit.runtime.files import real_path


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that UTF-8 can write: a file's name may hold bytes that are no text, which become escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace").decode("utf-8")


def refuse_inputs(path: Path, flag: str, inputs: Mapping[str, Iterable[Path]], fix: str = "name another file") -> None:
    """Raise UsageError where `path`, the output that `flag` names, is one of the files that an option in `inputs` reads."""
    written = real_path(path)
    for option, files in inputs.items():
        if any(real_path(file) == written for file in files):
            raise UsageError(f"{flag} {path}: would take the place of what {option} reads: {fix}")


def bundle_files(engine: Path, manifest: Manifest) -> Iterator[Path]:
    """The files of a bundle."""
    yield engine / MANIFEST_NAME
    yield from (engine / name for name in manifest.files)


def data_files(dataset: Dataset) -> Iterator[Path]:
    """The images and labels of a data set; none of drawn scenes."""
    for pair in dataset.pairs if isinstance(dataset, Pairs) else ():
        yield pair.image
        yield pair.labels
