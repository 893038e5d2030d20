"""`dovit-map`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.options import Backend, BackendChoice, Engine, Json, Mode, Precision, Recursive, Threshold
from dovit.runtime.cli.values import parse_thresholds
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import check_folder_name

EPILOG = """\b
Examples:
    dovit-map --engine engines/ --input photos/ --output labels/ --workers 4
    dovit-map --engine engines/ --input 'frames/*.jpg' --output labels/
    dovit-map --engine engines/ --input images.parquet --column image \\
        --id path --output labelled/
"""


class LabelsChoice(StrEnum):
    """Where labels go."""

    png = "png"
    parquet = "parquet"


def command(
    engine: Engine,
    given: Annotated[
        list[str],
        typer.Option(
            "--input", metavar="PATH", help="Images: files, folders, quoted globs; or one parquet file or folder."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where labels and rows go; made if missing.")],
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that segment.")] = 1,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="CPU threads of each worker.")] = 1,
    recursive: Recursive = False,
    labels: Annotated[
        LabelsChoice | None,
        typer.Option(
            metavar="KIND", help="png: a file an image; parquet: a column of the rows. Default: png for image files."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="For parquet: the column with images. Default: image.")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="For parquet: a column unique to each row. Default: path."),
    ] = None,
    mode: Mode = None,
    threshold: Threshold = None,
    backend: Backend = BackendChoice.auto,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Segment many images with Ray Data: labels, and a row for each image in OUTPUT/rows/*.parquet.

    The same command given again resumes a run that was interrupted. Ray is started on this machine, or
    used at RAY_ADDRESS. An image that cannot be read or segmented is a row with an error.
    """
    try:
        from dovit.batch.run import Job, map_files, map_parquet
    except ModuleNotFoundError as error:
        raise UsageError(f"dovit-map needs the package {error.name}: pip install 'dovit[ray]'") from None

    check_folder_name(output, "--output")
    settings: dict[str, Any] = {
        "threads": threads,
        "backend": backend.value,
        "precision": precision.value if precision else None,
        "mode": mode.value if mode else None,
        "threshold": parse_thresholds(threshold),
    }
    job = Job(engine, output, workers, settings)
    tables = [path for path in map(Path, given) if _is_parquet(path)]
    start = time.perf_counter()
    if tables:
        if len(given) > 1:
            raise UsageError("--input: give one parquet file or folder, or images, not several")
        if labels == LabelsChoice.png:
            raise UsageError("--labels png is for image files: rows of a parquet file get their labels as a column")
        with redirect_stdout(sys.stderr):  # where Ray prints what its workers and raylets say
            done = map_parquet(job, tables[0], image=column or "image", identity=identity or "path")
    else:
        if column or identity:
            raise UsageError("--column and --id are for parquet files, and --input names images")
        inputs = find_inputs(given, recursive=recursive, skip=output, must_exist=True)
        with redirect_stdout(sys.stderr):
            done = map_files(job, inputs, labels=(labels or LabelsChoice.png).value)
    seconds = time.perf_counter() - start
    if as_json:
        row = {"images": done.images, "before": done.before, "errors": len(done.errors), "seconds": round(seconds, 3)}
        print(json.dumps(row | {"rows": str(output / "rows")}))
    else:
        before = f", {done.before} were done before" if done.before else ""
        print(
            f"{done.images} image{'s' * (done.images != 1)} in {seconds:.1f} s{before}; a row for each in {output / 'rows'}"
        )
    if done.errors:
        raise DovitError(
            f"{len(done.errors)} of {done.images + done.before} images failed (for one: {done.errors[0]}); "
            f"the column error in {output / 'rows'} says why each did"
        )


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.is_dir() and next(path.glob("*.parquet"), None) is not None)


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-map", epilog=EPILOG)
