"""The class that `ray.data.Dataset.map_batches` keeps in each of its workers: a loaded bundle that segments batches of rows."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dovit.runtime import draw
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb, decode_image
from dovit.runtime.loading import Backend, load
from dovit.runtime.result import Result

try:
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise UsageError(f"dovit.batch needs the package {error.name}: pip install 'dovit[ray]'") from None

RESULT = "Result"  # text of a PNG of labels: its row, so that a resumed run need not segment the image again
# what is added to each row; `labels` too where they are not written to files
COLUMNS = {
    "height": pa.int32(),
    "width": pa.int32(),
    "tokens": pa.int32(),  # slide: times the windows
    "kept": pa.list_(pa.int32()),  # after each decision; slide: summed over the windows
    "macs": pa.int64(),  # as the paper counts, without attention's products
    "macs_true": pa.int64(),
    "error": pa.string(),  # null, or why there are no labels
}


class Segmenter:
    """Adds labels, kept counts and MACs to rows that have an image.

        dataset.map_batches(Segmenter, fn_constructor_kwargs={"engine": "engines/"}, batch_size=8, num_cpus=1,
                            compute=ray.data.ActorPoolStrategy(size=4))

    The column `image` holds paths, files' contents (bytes), structs with `bytes` or `path`, or uint8 arrays [H, W, 3]; it is
    dropped, except paths. Columns added: height, width, tokens, kept, macs, macs_true, error, and labels: a PNG (bytes)
    whose pixels are class numbers. A row whose image cannot be read or segmented has a sentence in `error` and null in the
    others.
    """

    def __init__(
        self,
        engine: str | Path,
        *,
        image: str = "image",
        labels_file: str | None = None,
        source: str | None = None,
        backend: Backend = "auto",
        precision: Precision | None = None,
        threads: int | None = 1,
        mode: Mode | None = None,
        threshold: float | Sequence[float] | None = None,
    ) -> None:
        """`engine`: the bundle's folder, on each machine. `image`: the images' column.

        `labels_file`: a column with the paths of PNG files, to which the labels are written instead of a column; `source`: the
        column with what each file is stored to be made from (PNG text `Source`). A file that is there and was made from the same
        is not written again: its row is read from it. `backend`, `precision`, `threads`: as for `dovit.load`, with one thread a
        worker; `mode`, `threshold`: as for a session's call.
        Raises DovitError where the bundle cannot be loaded.
        """
        on_cpu = backend in ("auto", "onnxruntime")
        self._session = load(engine, backend, threads=threads if on_cpu else None, precision=precision)
        self._session.check_thresholds(threshold)
        self._image, self._labels_file, self._source = image, labels_file, source
        self._mode, self._threshold = mode, threshold

    def __call__(self, batch: pa.Table | Mapping[str, np.ndarray]) -> pa.Table:
        """The rows of `batch` with the new columns. Raises DovitError where a file of labels cannot be written."""
        columns: dict[str, Any] = _columns(batch)
        if self._image not in columns:
            raise UsageError(f"no column {self._image!r} in the dataset: it has {', '.join(columns)}; give image=")
        images = columns[self._image]
        if not all(isinstance(image, str) for image in images):
            del columns[self._image]
        files = columns.get(self._labels_file or "", [None] * len(images))
        sources = columns.get(self._source or "", [None] * len(images))
        rows = [self._row(image, *where) for image, *where in zip(images, files, sources, strict=True)]
        kinds = COLUMNS if self._labels_file else {"labels": pa.binary(), **COLUMNS}
        others = {name: batch[name] if isinstance(batch, pa.Table) else pa.array(columns[name]) for name in columns}
        made = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()}
        return pa.table(others | made)

    def _row(self, image: Any, file: str | None, source: str | None) -> dict[str, Any]:
        if file is not None and (known := _row_of(Path(file), source)) is not None:
            return known
        try:
            result = self._session(_pixels(image), mode=self._mode, threshold=self._threshold)
        except DovitError as error:
            return {"error": str(error)}
        row = self._numbers(result)
        palette = self._session.palette
        if file is not None:
            draw.save_labels(result.labels, palette, Path(file), source, {RESULT: json.dumps(row)})
            return row
        stream = io.BytesIO()
        draw.labels_image(result.labels, palette).save(stream, "PNG")
        return row | {"labels": stream.getvalue()}

    def _numbers(self, result: Result) -> dict[str, Any]:
        kept = [window.kept for window in result.windows] or [result.kept]
        macs = [self._session.manifest.macs(counts) for counts in kept]
        return {
            "height": result.labels.shape[0],
            "width": result.labels.shape[1],
            "tokens": result.tokens,
            "kept": list(result.kept),
            "macs": sum(paper for paper, _ in macs),
            "macs_true": sum(true for _, true in macs),
        }


def _columns(batch: pa.Table | Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    if isinstance(batch, pa.Table):
        return {name: batch.column(name).to_pylist() for name in batch.column_names}
    return {name: values.tolist() if values.ndim == 1 else list(values) for name, values in batch.items()}


def _pixels(image: Any) -> np.ndarray:
    """uint8 [H, W, 3]. Raises DovitError."""
    if isinstance(image, Mapping):  # as Hugging Face's datasets store images
        image = image.get("bytes") if image.get("bytes") is not None else image.get("path")
    if image is None:
        raise DovitError("the row has no image")
    if isinstance(image, bytes):
        return decode_image(image, "image")
    return as_rgb(image)


def _row_of(file: Path, source: str | None) -> dict[str, Any] | None:
    """The row of an image whose labels are in `file` already; None where they are not, or are another image's."""
    text = draw.text_of(file)
    if RESULT not in text or text.get("Source") != source:
        return None
    row: dict[str, Any] = json.loads(text[RESULT])
    return row
