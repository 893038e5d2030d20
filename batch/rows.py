"""The table of a run: a folder of parquet files, which says what is done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pd
import pyarrow.parquet as pq

from dovit.runtime.bundle.manifest import MANIFEST_NAME
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import atomic_write

ROWS = "rows"  # the folder in OUTPUT
SETTINGS = "dovit-map.json"


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Write the run's settings into `output`, or compare them with those there. Raises UsageError where they differ."""
    file = output / SETTINGS
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise UsageError(
                f"{output} holds a run with another {' and '.join(changed)}: repeat it as it was, or give --output another folder"
            )
        return
    if output.is_dir() and any(output.glob(f"{ROWS}/*")):
        raise UsageError(f"{output / ROWS} is there and is not of dovit-map: give --output another folder")
    try:
        (output / ROWS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DovitError(f"{output}: cannot be made a folder ({error.strerror}); give --output another one") from None
    with atomic_write(file) as part:
        part.write_text(json.dumps(settings, ensure_ascii=False) + "\n", encoding="utf-8")


def bundle_hash(engine: Path) -> str:
    """Stands for a bundle: its manifest has the hashes of all its files."""
    return hashlib.sha256((engine / MANIFEST_NAME).read_bytes()).hexdigest()


def finished(output: Path, column: str) -> set[str]:
    """The values of `column` in all rows there are. A file that a killed run left unfinished is removed: its rows come again."""
    found: set[str] = set()
    for file in (output / ROWS).glob("*.parquet"):
        try:
            found.update(pq.read_table(file, columns=[column]).column(column).to_pylist())
        except (pa.ArrowInvalid, OSError):
            file.unlink()
    return found


def summary(output: Path) -> tuple[int, list[str]]:
    """How many rows there are, and the errors in them."""
    errors = pd.dataset(output / ROWS, format="parquet").to_table(columns=["error"]).column("error")
    return len(errors), errors.drop_null().to_pylist()
