"""What dovit-map refuses before Ray starts, and when it says that a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dovit.batch import run
from dovit.batch.rows import summary
from dovit.batch.run import Job, map_files, map_parquet
from dovit.runtime.cli.inputs import Input
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.openvino import device


class RayStarts(Exception):
    """Instead of Ray."""


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(job: Job) -> None:
        raise RayStarts

    monkeypatch.setattr(run, "_connected", start)
    monkeypatch.setattr(run.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def map_one(engine: Path, image: Path, output: Path, **settings: Any) -> None:
    map_files(Job(engine, output, 1, settings), [Input(image)], labels="png")


def table_of(folder: Path, name: str, values: list[Any]) -> Path:
    pq.write_table(pa.table({name: values, "image": [b""] * len(values)}), folder / "images.parquet")
    return folder / "images.parquet"


def write_rows(output: Path, name: str, **columns: list[Any]) -> Path:
    (output / "rows").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), output / "rows" / name)
    return output / "rows" / name


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["a", "a", "b"], "--id path: 'a' occurs twice; name a column unique to each row"),
        (["a", None], "--id path: row 2 has no value; name a column unique to each row"),
        ([float("nan"), 1.0], "--id path: row 1 has no value"),
        ([["a"], ["b"]], "--id path: row 1 has a list or a struct"),
    ],
)
def test_ids_must_be_unique(bundle: Path, tmp_path: Path, values: list[Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        map_parquet(
            Job(bundle, tmp_path / "out", 1, {}), table_of(tmp_path, "path", values), image="image", identity="path"
        )
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_kept_cannot_be_the_id(bundle: Path, tmp_path: Path) -> None:
    job = Job(bundle, tmp_path / "out", 1, {})
    with pytest.raises(UsageError, match="the rows are written without their images: name another column"):
        map_parquet(job, table_of(tmp_path, "path", ["a"]), image="image", identity="image")
    with pytest.raises(RayStarts):  # paths are kept
        map_parquet(job, table_of(tmp_path, "path", ["a"]), image="path", identity="path")


def test_a_table_with_other_rows_is_not_done(bundle: Path, tmp_path: Path) -> None:
    """As many rows are finished as the table has, but not its own."""
    job = Job(bundle, tmp_path / "out", 1, {})
    for ids in (["a", "b"], ["b", "c"]):
        with pytest.raises(RayStarts):
            map_parquet(job, table_of(tmp_path, "path", ids), image="image", identity="path")
        write_rows(job.output, "0.parquet", path=["a", "b"], error=pa.array([None, None], pa.string()))
    done = map_parquet(job, table_of(tmp_path, "path", ["b", "a"]), image="image", identity="path")
    assert (done.images, done.before) == (0, 2)


def test_a_precision_that_this_cpu_lacks(
    bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers would refuse it, after half a minute; on a cluster they run elsewhere."""
    output = tmp_path / "out"
    monkeypatch.setattr(device, "computes_bf16", lambda: False)
    for missing, precision, sentence in (
        (None, "bf16", "this CPU has no bf16 instructions"),
        (device.MISSING, "bf16", "needs the provider openvino, which cannot be used: the package openvino is not"),
        (None, "fp16", "precision fp16 is for plans"),
    ):
        monkeypatch.setattr(device, "why_not", lambda missing=missing: missing)
        with pytest.raises(DovitError, match=sentence):
            map_one(bundle, image, output, precision=precision)
    assert not output.exists()
    run._check_precision(Job(bundle, output, 1, {"precision": "fp16", "backend": "tensorrt"}))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(RayStarts):
        map_one(bundle, image, output, precision="bf16")


def test_only_a_run_that_got_somewhere_is_said_to_go_on(tmp_path: Path) -> None:
    class Failing:
        def map_batches(self, *_: object, **__: object) -> Failing:
            return self

        def write_parquet(self, path: str) -> None:
            raise run.RayError("dovit.runtime.errors.DovitError: the bundle is broken")

    job, labels = Job(tmp_path / "engines", tmp_path, 1, {}), tmp_path / "a.png"

    def sentence() -> str:
        with pytest.raises(DovitError) as error:
            run._run(job, Failing(), {}, [])
        return str(error.value)

    (tmp_path / "dovit-map.json").touch()  # the settings, which every run notes
    assert sentence() == "the bundle is broken"
    labels.touch()
    assert sentence().endswith(f"; what was finished is in {tmp_path}, and the same command goes on from there")
    labels.unlink()
    write_rows(tmp_path, "0.parquet", image=["a"])
    assert sentence().endswith("goes on from there")


def test_rows_that_cannot_be_counted_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DovitError, match=r"rows: cannot be read \(.*the same command goes on from there"):
        summary(tmp_path)
