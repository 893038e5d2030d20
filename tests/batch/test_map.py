"""dovit-map on a cluster of two nodes on this machine."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import make_bundle
from models import randomised, small_config
from PIL import Image

from dovit.batch import Segmenter, cli, run
from dovit.batch.rows import begun_run, finished
from dovit.batch.run import Done, Job, map_files
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load

IMAGES = 40
Outcome = tuple[int, str, str]  # exit status, stdout, stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `engines/`, and `photos/` of which the last is damaged."""
    folder = tmp_path_factory.mktemp("map")
    make_bundle(randomised(small_config()), folder / "engines")
    (folder / "photos").mkdir()
    for number in range(IMAGES - 1):
        image = np.random.default_rng(number).integers(0, 256, (40 + number % 3, 60, 3), np.uint8)
        Image.fromarray(image).save(folder / "photos" / f"{number:02}.png")
    (folder / "photos" / "broken.png").write_bytes((folder / "photos" / "00.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two CPUs and a node with one; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        quiet = {"object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **quiet})
        cluster.second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.connect_here = lambda: ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        cluster.connect_here()
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def dovit_map(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DOVIT_DEBUG", raising=False)

    def call(*arguments: str, engine: str = "engines") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dovit-map", "--engine", engine, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def logging_segmenter(log: Path, seconds: float) -> type:
    """A slow Segmenter that logs which files it wrote. Defined here, so that its code is pickled for the workers."""

    class LoggingSegmenter(Segmenter):
        def _row(self, image: Any, file: str | None, source: str | None) -> dict[str, Any]:
            there = file is not None and os.path.exists(file)
            row = super()._row(image, file, source)
            if file is not None and not there and "error" not in row:
                with log.open("a") as stream:
                    stream.write(f"{file} {os.getpid()}\n")
            time.sleep(seconds)
            return row

    return LoggingSegmenter


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(output / "rows").to_pylist()
    assert len({row["image"] for row in rows}) == len(rows)
    return {Path(row["image"]).name: row for row in rows}


def assert_complete(folder: Path, output: Path) -> None:
    """Labels of all images as a session makes them, one row for each, and an error for the damaged one."""
    rows, session = rows_of(output), load(folder / "engines", threads=1)
    assert len(rows) == IMAGES
    assert "damaged or cut off" in rows.pop("broken.png")["error"]
    for name, row in rows.items():
        want = session(folder / "photos" / name)
        np.testing.assert_array_equal(np.asarray(Image.open(output / name)), want.labels)
        assert (row["error"], row["kept"], row["tokens"]) == (None, list(want.kept), want.tokens)
    assert len(list(output.glob("*.png"))) == IMAGES - 1


def test_a_killed_worker_and_a_killed_node_lose_nothing(
    cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    output, log = tmp_path / "labels", tmp_path / "log"
    log.touch()
    monkeypatch.setattr(run, "Segmenter", logging_segmenter(log, 0.4))
    killed: list[int] = []

    def written() -> list[list[str]]:
        return [line.split() for line in log.read_text().splitlines()]

    def kill() -> None:
        while len(written()) < 6:
            time.sleep(0.05)
        killed.append(int(written()[-1][1]))
        os.kill(killed[0], signal.SIGKILL)
        while len(written()) < 14:
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    inputs = find_inputs([str(folder / "photos")])
    done = map_files(Job(folder / "engines", output, 2, {"threads": 1}), inputs, labels="png")
    killer.join(1)
    assert not killer.is_alive() and killed
    assert (done.images, done.before, len(done.errors)) == (IMAGES, 0, 1)
    assert_complete(folder, output)
    assert max(Counter(file for file, _ in written()).values()) == 1
    # Ray learns of it by missed heartbeats; until then it starts the next test's actors on that node
    while any(node["Alive"] and node["NodeID"] == cluster.second.node_id for node in ray.nodes()):
        time.sleep(0.1)
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)


def test_a_run_that_failed_goes_on(cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of labels that cannot be written ends the run; after that, what is there is not written again."""
    output = tmp_path / "labels"
    job = Job(folder / "engines", output, 1, {"threads": 1}, rows_per_file=4)
    inputs = find_inputs([str(folder / "photos")])
    (output / "30.png").mkdir(parents=True)  # a folder where a file is to be written
    with monkeypatch.context() as patch:
        patch.setattr(run, "check_outputs", lambda *_, **__: None)
        with pytest.raises(DovitError, match=r"30\.png: a folder; name a file; what was finished is in"):
            map_files(job, inputs, labels="png")
    (output / "30.png").rmdir()
    before = {file: file.stat().st_mtime_ns for file in output.glob("*.png")}
    assert before
    whole = next((output / "rows").glob("*.parquet"), None)
    (output / "rows" / "cut.parquet").write_bytes(b"PAR1")  # as left by a run that was killed while writing
    done = map_files(job, inputs, labels="png")
    assert done.images + done.before == IMAGES and (whole is None or done.before)
    assert_complete(folder, output)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    again = map_files(job, inputs, labels="png")
    assert (again.images, again.before, len(again.errors)) == (0, IMAGES, 1)


def test_parquet_in_and_out(cluster: Any, folder: Path, dovit_map: Callable[..., Outcome], tmp_path: Path) -> None:
    files = sorted((folder / "photos").glob("*.png"))[-6:]
    table = pa.table({"jpeg": [file.read_bytes() for file in files], "id": [file.name for file in files]})
    pq.write_table(table.slice(0, 4), tmp_path / "images.parquet")
    arguments = ["--input", str(tmp_path / "images.parquet"), "--column", "jpeg", "--id", "id", "--json"]
    status, out, err = dovit_map(*arguments, "--output", str(tmp_path / "out"))
    assert status == 0, err
    assert json.loads(out)["images"] == 4
    pq.write_table(table, tmp_path / "images.parquet")  # two more, the last of which is damaged
    status, out, err = dovit_map(*arguments, "--output", str(tmp_path / "out"))
    report = json.loads(out)
    assert status == 1 and (report["images"], report["before"], report["errors"]) == (2, 4, 1)
    session = load(folder / "engines", threads=1)
    rows = pq.read_table(tmp_path / "out" / "rows").to_pylist()
    assert sorted(row["id"] for row in rows) == [file.name for file in files]
    (error,) = (row["error"] for row in rows if row["error"])
    assert f"1 of 6 images failed (for one: {error}); the column error in {tmp_path / 'out' / 'rows'} says" in err
    for row in rows:
        if row["id"] != "broken.png":
            (tmp_path / "one.png").write_bytes(row["labels"])
            want = session(folder / "photos" / row["id"]).labels
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), want)


def test_stdout_is_the_report_alone(
    dovit_map: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray prints warnings of its raylets to sys.stdout, at any time of a run."""

    def warned(*_: object, **__: object) -> Done:
        print("(raylet) WARNING: 8 PYTHON worker processes have been started")
        return Done(6, 0, [])

    for name in ("map_files", "map_parquet"):
        monkeypatch.setattr(run, name, warned)
    for given in ("photos", str(tmp_path / "images.parquet")):
        status, out, err = dovit_map("--input", given, "--output", str(tmp_path / "out"), "--json")
        assert status == 0 and json.loads(out)["images"] == 6 and "(raylet)" in err


def test_wrong_requests_are_refused(
    cluster: Any, folder: Path, dovit_map: Callable[..., Outcome], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"image": [b"x"], "error": [""]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("text")
    for arguments, status, sentence in (
        (
            ["--input", "photos", "--workers", "9"],
            2,
            "9 workers of 1 CPUs, and one for reading and writing, need 10 CPUs",
        ),
        (["--input", "photos", "--column", "x"], 2, "--column and --id are for parquet files"),
        (["--input", "nowhere/*.png"], 2, "no file matches"),
        (["--input", "nowhere/", "--input", "photos"], 2, "nowhere/: no such file or folder; check the path"),
        (["--input", "photos", "--threshold", "2"], 2, "--threshold 2 lies outside [0, 1]"),
        (
            ["--input", str(tmp_path / "a.parquet"), "--column", "x"],
            2,
            "no column 'x', it has image, error; give --column",
        ),
        (["--input", str(tmp_path / "a.parquet"), "--id", "image"], 2, "the columns error are there already"),
        (["--input", str(tmp_path / "b.parquet")], 1, "cannot be read as parquet"),
        (["--input", str(tmp_path / "c.parquet")], 1, "cannot be read as parquet"),
        (["--input", str(tmp_path / "a.parquet"), "--labels", "png"], 2, "--labels png is for image files"),
    ):
        found, _, err = dovit_map(*arguments, "--output", str(tmp_path / "refused"))
        assert found == status and sentence in err and err.count("\n") == 1, err
    found, _, err = dovit_map("--input", "photos", "--output", "labels.parquet")
    assert found == 2 and "labels.parquet: the name of a file; give a folder, such as labels" in err
    found, _, err = dovit_map("--input", "photos", "--output", str(tmp_path / "other"), engine="photos")
    assert found == 1 and "not a dovit bundle" in err and not (tmp_path / "other").exists()


def test_another_runs_folder_is_refused(
    cluster: Any, folder: Path, dovit_map: Callable[..., Outcome], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    one = ["--input", "photos/00.png", "--output", str(output)]
    assert dovit_map(*one)[0] == 0
    status, _, err = dovit_map(*one, "--threshold", "0.3")
    assert status == 2 and "holds a run with another threshold" in err
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "mine" / "00.png")
    status, _, err = dovit_map(*one[:3], str(tmp_path / "mine"))
    assert status == 2 and "00.png is there and was not written by dovit" in err


def noted(precision: str = "fp32", backend: str = "auto", labels: str = "png", **more: str) -> dict[str, Any]:
    return {"bundle": "b", "labels": labels, "precision": precision, "backend": backend, "mode": None, **more}


def test_a_run_goes_on_with_the_settings_it_began_with(tmp_path: Path) -> None:
    """Those that only one of the two has count as well: a table's column and id."""
    table = noted(labels="parquet", column="image", id="path")
    with begun_run(tmp_path, table):
        pq.write_table(pa.table({"path": ["a"]}), tmp_path / "rows" / "0.parquet")
    for settings, what in (
        (noted(labels="parquet"), "column and id"),
        (table | {"precision": "bf16"}, "precision"),
        (table | {"backend": "tensorrt"}, "backend"),
    ):
        with pytest.raises(UsageError, match=f"holds a run with another {what}: "), begun_run(tmp_path, settings):
            raise AssertionError
    with begun_run(tmp_path, table):
        assert finished(tmp_path, "path") == {"a"}


def test_a_run_that_made_nothing_holds_no_settings(tmp_path: Path) -> None:
    with pytest.raises(DovitError, match="no bf16"), begun_run(tmp_path, noted("bf16")):
        raise DovitError("this CPU has no bf16 instructions")
    with begun_run(tmp_path, noted()):
        (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="another precision"), begun_run(tmp_path, noted("bf16")):
        raise AssertionError


@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_settings_of_another_program(tmp_path: Path, text: str) -> None:
    (tmp_path / "dovit-map.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"dovit-map\.json: not as dovit-map wrote it"), begun_run(tmp_path, noted()):
        raise AssertionError


def test_the_settings_of_a_job(folder: Path, tmp_path: Path) -> None:
    """`auto` is what it takes, and what is not said is what it stands for."""

    def of(**settings: Any) -> dict[str, Any]:
        return run._settings(Job(folder / "engines", tmp_path, 1, settings), "png")

    assert of() == of(backend="onnxruntime") == of(precision="fp32") != of(precision="bf16")
    with pytest.raises(DovitError, match="no tensorrt plans in this bundle"):
        of(backend="tensorrt")


def test_only_unfinished_rows_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    pq.write_table(pa.table({"image": ["a"]}), rows / "whole.parquet")
    content = (rows / "whole.parquet").read_bytes()
    for name, cut in (("empty", b""), ("short", b"PAR1"), ("cut", content[:-1])):
        (rows / f"{name}.parquet").write_bytes(cut)
    assert finished(tmp_path, "image") == {"a"}
    assert [file.name for file in rows.iterdir()] == ["whole.parquet"]
    with pytest.raises(DovitError, match="rows without the column 'path': give --output another folder"):
        finished(tmp_path, "path")
    (rows / "damaged.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(DovitError, match=r"damaged\.parquet: cannot be read .* or remove the file"):
        finished(tmp_path, "image")
    (rows / "damaged.parquet").unlink()

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(pq, "ParquetFile", fails)
    with pytest.raises(DovitError, match=r"whole\.parquet: cannot be read \(.*Stale file handle"):
        finished(tmp_path, "image")
    assert [file.name for file in rows.iterdir()] == ["whole.parquet"]


def test_a_second_run_waits_for_the_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It removes what is unfinished, which until then the first is still writing."""
    monkeypatch.setattr(run, "_connected", lambda _: nullcontext())
    monkeypatch.setattr(run.ray.data, "from_items", lambda *_, **__: None)
    ran: list[str] = []

    def write(job: Job, *_: object) -> None:
        ran.append("first")
        part = job.output / "rows" / "0.parquet"
        part.write_bytes(b"PAR1")
        second.start()
        while "is writing there; waiting" not in caplog.text and second.is_alive():
            time.sleep(0.01)
        pq.write_table(pa.table({"image": [str(photo)], "error": pa.array([None], pa.string())}), part)

    monkeypatch.setattr(run, "_run", write)
    photo = folder / "photos" / "00.png"
    job, inputs = Job(folder / "engines", tmp_path / "out", 1, {}), find_inputs([str(photo)])
    done: list[Done] = []
    second = threading.Thread(target=lambda: done.append(map_files(job, inputs, labels="parquet")))
    first = map_files(job, inputs, labels="parquet")
    second.join(30)
    assert ran == ["first"] and (first.images, done[0].images, done[0].before) == (1, 0, 1)


def test_a_connection_of_its_own(cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed after the run, and the caller's handler of SIGTERM, which ray.init replaces, is restored."""
    import ray

    ray.shutdown()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        inputs = find_inputs([str(folder / "photos" / "00.png")])
        assert map_files(Job(folder / "engines", tmp_path / "out", 1, {}), inputs, labels="png").images == 1
        assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
        cluster.connect_here()


LISTENING = """
from pathlib import Path

from dovit.batch.run import Job, _connected
import psutil  # Ray's own copy, where there is no other

with _connected(Job(Path("e"), Path("o"), 1, {})):
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip)
"""


def test_ray_on_this_machine_listens_on_127_0_0_1_alone(cluster: Any) -> None:
    """A new Ray is started although a cluster runs on this machine, in a process that is not connected to that cluster."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout and set(ended.stdout.split()) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, ended.stdout
