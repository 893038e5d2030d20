"""Runs a Segmenter over images with Ray Data, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pd

from dovit.batch.rows import ROWS, begun_run, bundle_hash, finished, holds_results, summary
from dovit.batch.segmenter import COLUMNS, Segmenter
from dovit.runtime.arguments import shown
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli.inputs import Input
from dovit.runtime.cli.outputs import check_outputs, output_folders, plan_pictures
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.openvino.device import check_precision, cpu_precision
from dovit.runtime.plans import choose_plans

# Ray sends usage statistics unless this is 0, as ONNX Runtime does (see dovit.runtime)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Ray on one machine listens on all its addresses, and takes _node_ip_address="127.0.0.1" for the machine's other address.
    # Where clusters are disabled, which is the default on Windows and macOS, it listens on 127.0.0.1 alone.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
import ray
import ray.data
from ray.exceptions import RayError


@dataclass(frozen=True)
class Job:
    """What is to be run. `settings`: arguments of Segmenter, the same for all images."""

    engine: Path
    output: Path
    workers: int
    settings: dict[str, Any]
    rows_per_file: int = 64

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return int(self.settings.get("threads") or 1)


@dataclass(frozen=True)
class Done:
    """The result of a run: `images` now and `before`, and the errors in the rows of all."""

    images: int
    before: int
    errors: list[str]


def map_files(job: Job, inputs: Sequence[Input], *, labels: str) -> Done:
    """Segment files; `labels`: `png`, a file an image below the output, or `parquet`, a column of the table.

    Raises UsageError and DovitError as dovit-run does.
    """
    settings = _settings(job, labels)
    _check_precision(job)
    with begun_run(job.output, settings):
        return _map_files(job, inputs, labels)


def _map_files(job: Job, inputs: Sequence[Input], labels: str) -> Done:
    done = finished(job.output, "image")
    pictures = plan_pictures(inputs, [1] * len(inputs), job.output, [".png"])
    left = [picture for picture in pictures if str(picture.file) not in done]
    rows: list[dict[str, Any]] = [
        {"image": str(picture.file), "path": os.path.abspath(picture.file)} for picture in left
    ]
    columns: dict[str, Any] = {"image": "path"}
    if labels == "png":
        check_outputs(left, [".png"], overwrite=False)
        for row, picture in zip(rows, left, strict=True):
            row |= {"labels_file": os.path.abspath(picture.output(".png")), "source": picture.source}
        columns |= {"labels_file": "labels_file", "source": "source"}
    if left:
        with output_folders(left if labels == "png" else [], job.output), _connected(job):
            blocks = -(-len(rows) // _rows_per_block(job, len(rows)))
            dataset = ray.data.from_items(rows, override_num_blocks=blocks)
            _run(job, dataset, columns, [name for name in ("path", "source") if name in rows[0]])
    return Done(len(left), len(done), summary(job.output)[1])


def map_parquet(job: Job, given: Path, *, image: str, identity: str) -> Done:
    """Segment the images in the column `image` of parquet files; the labels become a column. `identity`: a column that says
    which row is which, so that a run can go on."""
    table = _parquet(given)
    for name, flag in ((image, "--column"), (identity, "--id")):
        if name not in table.schema.names:
            raise UsageError(f"{given}: no column {name!r}, it has {', '.join(table.schema.names)}; give {flag}")
    if clash := sorted({*COLUMNS, "labels"} & set(table.schema.names) - {image}):
        raise UsageError(
            f"{given}: the columns {', '.join(clash)} are there already and would be replaced: rename them"
        )
    identities = _identities(table, given, identity)
    if identity == image and not all(isinstance(value, str) for value in identities):
        raise UsageError(
            f"--id {identity}: the rows are written without their images: name another column unique to each row"
        )
    settings = _settings(job, "parquet", column=image, id=identity)
    _check_precision(job)
    with begun_run(job.output, settings):
        return _map_parquet(job, table, image, identity, identities)


def _map_parquet(job: Job, table: Any, image: str, identity: str, identities: list[Any]) -> Done:
    done = finished(job.output, identity)
    if not done.issuperset(identities):
        with _connected(job):
            seen = ray.put(done)

            def not_done(batch: pa.Table) -> pa.Table:
                known = ray.get(seen)
                return batch.filter(
                    pa.array([value not in known for value in batch.column(identity).to_pylist()], pa.bool_())
                )

            dataset = ray.data.read_parquet([os.path.abspath(file) for file in table.files])
            dataset = dataset.repartition(-(-len(identities) // _rows_per_block(job, len(identities))))
            if done:
                dataset = dataset.map_batches(not_done, batch_format="pyarrow")
            _run(job, dataset, {"image": image}, [])
    rows, errors = summary(job.output)
    return Done(rows - len(done), len(done), errors)


def _settings(job: Job, labels: str, **more: str) -> dict[str, Any]:
    """What decides the rows, and so must be the same when a run goes on. Opens the bundle.

    Not among it is which provider computes in fp32 on a CPU: each worker's machine chooses, and they agree to rounding.
    """
    bundle = open_bundle(job.engine)
    backend, precision = job.settings.get("backend", "auto"), job.settings.get("precision")
    if backend in ("tensorrt", "tensorrt-rtx"):
        precision = choose_plans(bundle.root, bundle.manifest, backend, precision).precision
    threshold = job.settings.get("threshold")
    return {
        "bundle": bundle_hash(job.engine),
        "backend": "onnxruntime" if backend == "auto" else backend,
        "precision": precision or "fp32",
        "labels": labels,
        "mode": job.settings.get("mode"),
        "threshold": None if threshold is None else list(threshold),
        **more,
    }


def _check_precision(job: Job) -> None:
    """Where the workers run on this machine, whether its CPU has the precision: they would say so only after Ray's start."""
    here = not ray.is_initialized() and not os.environ.get("RAY_ADDRESS")
    if here and job.settings.get("backend") not in ("tensorrt", "tensorrt-rtx"):
        check_precision(cpu_precision(job.settings.get("precision")))


def _parquet(given: Path) -> Any:
    with _readable(given):
        return pd.dataset(given, format="parquet")


def _identities(table: Any, given: Path, identity: str) -> list[Any]:
    """The column `identity` of `table`. Raises UsageError where it does not tell each row from all others."""
    with _readable(given):
        values: list[Any] = table.to_table(columns=[identity]).column(identity).to_pylist()
    seen: set[Any] = set()
    for number, value in enumerate(values, start=1):
        if not isinstance(value, Hashable):
            wrong = f"row {number} has a list or a struct"
        elif value is None or value != value:  # NaN is not even itself
            wrong = f"row {number} has no value"
        elif value in seen:
            wrong = f"{shown(value)} occurs twice"
        else:
            seen.add(value)
            continue
        raise UsageError(f"{given}, --id {identity}: {wrong}; name a column unique to each row")
    return values


@contextmanager
def _readable(given: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DovitError(f"{given}: cannot be read as parquet ({str(error).splitlines()[0]}); check the path") from None


def _rows_per_block(job: Job, rows: int) -> int:
    """A file of rows for each; few images are spread over the workers."""
    return max(1, min(job.rows_per_file, -(-rows // (4 * job.workers))))


class _connected:
    """A connection to Ray: the caller's own where there is one, else to RAY_ADDRESS, else Ray started on this machine."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        self._ours = not ray.is_initialized()
        if self._ours:
            sigterm = signal.getsignal(signal.SIGTERM)
            try:
                self._connect()
            finally:  # ray.init leaves a handler that ends this process with status 15, whatever the caller's handler does
                if signal.getsignal(signal.SIGTERM) is not sigterm:
                    signal.signal(signal.SIGTERM, sigterm)
        try:
            self._check()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            ray.shutdown()

    def _connect(self) -> None:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",  # not the cluster that `ray start` left on this machine: that one is named by RAY_ADDRESS
                num_cpus=self._job.workers * self._job.threads + 1,  # reading and writing tables are tasks of one CPU
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )

    def _check(self) -> None:
        there, needed = ray.cluster_resources().get("CPU", 0), self._job.workers * self._job.threads + 1
        if needed > there:
            raise UsageError(
                f"{self._job.workers} workers of {self._job.threads} CPUs, and one for reading and writing, need {needed} CPUs, "
                f"and Ray has {there:g}: give fewer --workers or --threads"
            )


def _run(job: Job, dataset: Any, columns: dict[str, Any], drop: list[str]) -> None:
    gpu = str(job.settings.get("backend", "auto")).startswith("tensorrt")
    made = dataset.map_batches(
        Segmenter,
        fn_constructor_kwargs={"engine": os.path.abspath(job.engine), **job.settings, **columns},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=job.workers),
        num_cpus=job.threads,
        num_gpus=1 if gpu else None,
    )
    if drop:
        made = made.drop_columns(drop)
    try:
        made.write_parquet(os.path.abspath(job.output / ROWS))
    except RayError as error:
        more = ""
        if holds_results(job.output):
            more = f"; what was finished is in {job.output}, and the same command goes on from there"
        raise DovitError(_reason(error) + more) from None


def _reason(error: Exception) -> str:
    """The sentence of a worker's DovitError, which Ray passes on as a traceback's text; else what Ray says."""
    text = str(error)
    found = re.findall(r"^dovit\.runtime\.errors\.\w+: (.*)$", text, re.MULTILINE)
    return found[-1] if found else f"Ray gave up: {' '.join(text.split())[-600:]}"
