"""The table of a run: a folder of parquet files, which says what is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pd
import pyarrow.parquet as pq

from dovit.runtime.bundle.lock import LOCK_NAME, writer_lock
from dovit.runtime.bundle.manifest import MANIFEST_NAME
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import atomic_write, parse_json, read_text

ROWS = "rows"  # the folder in OUTPUT
SETTINGS = "dovit-map.json"


@contextmanager
def begun_run(output: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Hold the writer lock of `output`, made if missing, in which `settings` are noted or are those of the run there.

    Another run in `output` is waited for. Raises UsageError where the settings differ, or the rows there are another program's.
    """
    with ExitStack() as held:
        try:
            held.enter_context(writer_lock(output, make=True))
            (output / ROWS).mkdir(exist_ok=True)
        except OSError as error:
            raise DovitError(
                f"{output}: cannot be made a folder ({error.strerror}); give --output another one"
            ) from None
        _check_settings(output, settings)
        yield


def _check_settings(output: Path, settings: dict[str, Any]) -> None:
    file = output / SETTINGS
    if file.exists():
        try:
            before = parse_json(read_text(file))
        except ValueError:
            before = None
        except OSError as error:
            raise DovitError(f"{file}: cannot be read ({error.strerror}); repeat the command when it can") from None
        if not isinstance(before, dict):
            raise UsageError(f"{file}: not as dovit-map wrote it: give --output another folder")
        # those of either run: rows of a table have a column and an id, which files have not
        changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
        if not changed:
            return
        if holds_results(output):
            raise UsageError(
                f"{output} holds a run with another {' and '.join(changed)}: repeat it as it was, or give --output another folder"
            )
    elif any(output.glob(f"{ROWS}/*")):
        raise UsageError(f"{output / ROWS} is there and is not of dovit-map: give --output another folder")
    with atomic_write(file) as part:
        part.write_text(json.dumps(settings, ensure_ascii=False) + "\n", encoding="utf-8")


def holds_results(output: Path) -> bool:
    """Rows or labels. A run that its workers refused, as for bf16 on CPUs without it, has noted its settings and made none."""
    return any(path.is_file() and path.name not in (SETTINGS, LOCK_NAME) for path in output.rglob("*"))


def bundle_hash(engine: Path) -> str:
    """Stands for a bundle: its manifest has the hashes of all its files."""
    return hashlib.sha256((engine / MANIFEST_NAME).read_bytes()).hexdigest()


def finished(output: Path, column: str) -> set[str]:
    """The values of `column` in all rows there are. Requires the writer lock: a file without parquet's footer is removed, since
    a killed run left it unfinished, and its rows come again. Raises DovitError for all else that cannot be read."""
    found: set[str] = set()
    for file in (output / ROWS).glob("*.parquet"):
        try:
            if not _has_footer(file):
                file.unlink()
                continue
            with pq.ParquetFile(file) as rows:
                if column not in rows.schema_arrow.names:
                    raise DovitError(f"{file}: rows without the column {column!r}: give --output another folder")
                found.update(rows.read(columns=[column]).column(column).to_pylist())
        except (OSError, pa.ArrowException) as error:
            raise DovitError(
                f"{file}: cannot be read ({str(error).splitlines()[0]}); repeat the command when it can, or remove the file, "
                "whose rows are made again"
            ) from None
    return found


def _has_footer(file: Path) -> bool:
    """Whether `file` ends as parquet files do, which is written last."""
    with file.open("rb") as stream:
        stream.seek(-min(os.fstat(stream.fileno()).st_size, 8), os.SEEK_END)
        return stream.read()[4:] == b"PAR1"  # after four bytes with the footer's length


def summary(output: Path) -> tuple[int, list[str]]:
    """How many rows there are, and the errors in them. Raises DovitError where they cannot be read."""
    try:
        errors = pd.dataset(output / ROWS, format="parquet").to_table(columns=["error"]).column("error")
    except (OSError, pa.ArrowException) as error:
        raise DovitError(
            f"{output / ROWS}: cannot be read ({str(error).splitlines()[0]}); the same command goes on from there"
        ) from None
    return len(errors), errors.drop_null().to_pylist()
