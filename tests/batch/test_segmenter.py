"""`dovit.batch.Segmenter` without Ray: rows in, rows out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dovit.batch import Segmenter
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40 + seed, 60, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def labels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_rows_get_labels_and_numbers(bundle: Path) -> None:
    images = [random_image(seed) for seed in range(3)]
    table = pa.table({"image": [png(image) for image in images], "city": ["a", "b", "c"]})
    for settings in ({}, {"threshold": 0.3}, {"mode": "slide"}):
        session = load(bundle, threads=1)
        made = Segmenter(bundle, **settings)(table).to_pylist()
        assert set(made[0]) == {"city", "labels", "height", "width", "tokens", "kept", "macs", "macs_true", "error"}
        for row, image, city in zip(made, images, "abc", strict=True):
            want = session(image, **settings)
            np.testing.assert_array_equal(labels_of(row["labels"]), want.labels)
            assert (row["city"], row["height"], row["width"], row["error"]) == (city, *want.labels.shape, None)
            assert (row["kept"], row["tokens"]) == (list(want.kept), want.tokens)
            windows = [window.kept for window in want.windows] or [want.kept]
            macs = np.sum([session.manifest.macs(kept) for kept in windows], axis=0)
            assert [row["macs"], row["macs_true"]] == macs.tolist()


def test_arrays_structs_and_paths(bundle: Path, tmp_path: Path) -> None:
    image = random_image(1)
    file = tmp_path / "a.png"
    file.write_bytes(png(image))
    segmenter = Segmenter(bundle)
    want = load(bundle, threads=1)(image).labels
    arrays = np.empty(2, object)
    arrays[:] = [image, random_image(2)]
    structs = [{"bytes": file.read_bytes(), "path": None}, {"bytes": None, "path": str(file)}]
    for batch in ({"image": arrays}, {"image": np.stack([image] * 2)}, pa.table({"image": structs})):
        made = segmenter(batch)
        np.testing.assert_array_equal(labels_of(made["labels"][0].as_py()), want)
        assert made["error"].null_count == 2 and "image" not in made.column_names
    made = segmenter(pa.table({"image": [str(file)]}))
    assert made["image"].to_pylist() == [str(file)]
    np.testing.assert_array_equal(labels_of(made["labels"][0].as_py()), want)


def test_what_cannot_be_read_is_a_row_with_an_error(bundle: Path) -> None:
    whole = png(random_image(0))
    made = Segmenter(bundle)(pa.table({"image": [whole, whole[:200], b"text", b"", None]})).to_pylist()
    errors = ["damaged or cut off", "not an image", "holds no bytes", "has no image"]
    assert made[0]["error"] is None
    for row, error in zip(made[1:], errors, strict=True):
        assert error in row["error"] and row["labels"] is None and row["kept"] is None and row["macs"] is None


def test_files_are_written_once(bundle: Path, tmp_path: Path) -> None:
    rows = {"image": [png(random_image(0))], "file": [str(tmp_path / "a.png")], "from": ["photos/a.jpg"]}
    segmenter = Segmenter(bundle, labels_file="file", source="from")
    first = segmenter(pa.table(rows))
    before = (tmp_path / "a.png").stat()
    assert segmenter(pa.table(rows)) == first and "labels" not in first.column_names
    after = (tmp_path / "a.png").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    segmenter(pa.table(rows | {"from": ["photos/b.jpg"]}))
    assert (tmp_path / "a.png").stat().st_ino != before.st_ino
    with pytest.raises(DovitError, match="cannot be written"):  # an error of the disk, not of the image
        segmenter(pa.table(rows | {"file": [str(tmp_path / "missing" / "a.png")]}))


def test_its_thread_is_of_a_cpu(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With plans the default of one thread is not given on, which would be warned of."""
    with pytest.raises(DovitError, match="no tensorrt plans in this bundle"):
        Segmenter(bundle, backend="tensorrt")
    assert not caplog.records


def test_invalid_arguments_are_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DovitError, match="not a dovit bundle"):
        Segmenter(tmp_path)
    with pytest.raises(UsageError, match=r"threshold 2.* lies outside"):
        Segmenter(bundle, threshold=2)
    with pytest.raises(UsageError, match=r"no column 'picture' in the dataset: it has image; give image="):
        Segmenter(bundle, image="picture")(pa.table({"image": [b""]}))
