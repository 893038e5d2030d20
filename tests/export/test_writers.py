"""Concurrent writers, killed writers, and writers of invalid bundles: there is a complete bundle at any time."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from models import randomised, small_config
from writers import copy_bundle, other_bundle, race_writers

from dovit.runtime.bundle.lock import LOCK_NAME, writer_lock
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle, with_bundle
from dovit.runtime.bundle.write import STAGE_PREFIX, copy_files, write_bundle
from dovit.runtime.errors import DovitError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "good"
    make_bundle(randomised(small_config()), folder)
    return folder


@pytest.fixture(scope="module")
def other(good: Path) -> Path:
    other_bundle(good, good.with_name("other"))
    return good.with_name("other")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_two_writers_and_two_readers(good: Path, tmp_path: Path) -> None:
    outcomes = race_writers(good, tmp_path, writes=15)
    assert len(outcomes) == 4
    for name, found in outcomes.items():
        assert set(found) == {"whole"}, (name, found)
    assert files(tmp_path / "target") in (
        {"bundle.json", *open_bundle(source).manifest.files} for source in (good, tmp_path / "other")
    )


def test_the_second_writer_waits_and_says_so(
    good: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = Path(shutil.copytree(good, tmp_path / "target"))
    second = threading.Thread(target=copy_bundle, args=(other, target))
    with caplog.at_level(logging.WARNING, logger="dovit"), writer_lock(target):
        second.start()
        deadline = time.monotonic() + 60
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        assert f"process {os.getpid()} is writing there; waiting" in caplog.text
        assert not list(target.glob(f"{STAGE_PREFIX}*"))
    second.join(timeout=60)
    assert open_bundle(target).manifest == open_bundle(other).manifest and LOCK_NAME not in files(target)


def test_a_reader_begins_anew_where_its_bundle_is_replaced(good: Path, other: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(good, tmp_path / "target"))
    seen: list[Manifest] = []

    def use(bundle: Bundle) -> Manifest:
        seen.append(bundle.manifest)
        if len(seen) == 1:
            copy_bundle(other, target)
        for name in bundle.manifest.files:
            bundle.path(name).read_bytes()
        return bundle.manifest

    assert with_bundle(target, use) == open_bundle(other).manifest
    assert seen == [open_bundle(good).manifest, open_bundle(other).manifest]
    with pytest.raises(DovitError, match=r"bundle\.json") as error:
        with_bundle(target, lambda bundle: (target / "nowhere" / "bundle.json").read_bytes())
    assert "cannot be read" in str(error.value)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from writers import copy_bundle
real, calls = os.replace, []
def replace(*names):
    calls.append(names)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*names)
os.replace = replace
copy_bundle(Path({source!r}), Path({target!r}))
"""


@pytest.mark.parametrize("at", [1, 3, "manifest"])
@pytest.mark.parametrize("first", [False, True])
def test_what_a_killed_writer_left_is_removed(
    good: Path, other: Path, tmp_path: Path, at: int | str, first: bool
) -> None:
    target = tmp_path / "target"
    if not first:
        shutil.copytree(good, target)
    count = len(open_bundle(other).manifest.files) + 1 if at == "manifest" else at
    code = KILLED.format(tests=str(Path(__file__).parents[1]), at=count, source=str(other), target=str(target))
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    if not first:
        assert open_bundle(target).manifest == open_bundle(good).manifest
    assert list(target.glob(f"{STAGE_PREFIX}*"))
    mine = ("onnx/mine.onnx", "onnx/block1.weights", "notes-0123456789ab.onnx", "tensorrt/readme-0123456789ab.txt")
    for name in mine:
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("mine")
    copy_bundle(good, target)
    assert files(target) == {"bundle.json", *open_bundle(good).manifest.files, *mine}
    assert not list(target.glob(".*"))


def test_nothing_is_removed_beside_a_manifest_that_cannot_be_read(good: Path, tmp_path: Path) -> None:
    """It may be of a newer dovit."""
    target = Path(shutil.copytree(good, tmp_path / "target"))
    (target / "bundle.json").write_text('{"schema_version": 99}')
    before = files(target)
    with pytest.raises(DovitError, match="no"):
        write_bundle(target, refuse)
    assert files(target) == before


def refuse(stage: Path) -> Manifest:
    raise DovitError("no")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"slide_stride": (0, 0)}, "slide_stride"),
        ({"thresholds": (float("nan"), 0.5)}, "thresholds"),
        ({"palette": ((0, 0, 256),) * 7}, "palette"),
        ({"classes": 0}, "classes"),
        ({"capacities": (0, 25)}, "capacities"),
        ({"mean": (float("inf"), 0.0, 0.0)}, "mean"),
    ],
)
def test_an_invalid_bundle_replaces_nothing(good: Path, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    target = Path(shutil.copytree(good, tmp_path / "target"))
    before = files(target), (target / "bundle.json").read_bytes()

    def fill(stage: Path) -> Manifest:
        bundle = open_bundle(good)
        copy_files(bundle, stage, bundle.manifest.files)
        return bundle.manifest.model_copy(update=change)

    with pytest.raises(DovitError, match=f"could not be opened, and nothing was changed.*{sentence}") as error:
        write_bundle(target, fill)
    assert STAGE_PREFIX not in str(error.value)
    assert before == (files(target), (target / "bundle.json").read_bytes())
    open_bundle(target)


def test_a_file_that_a_step_uses_and_that_is_not_listed_replaces_nothing(good: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(good, tmp_path / "target"))

    def fill(stage: Path) -> Manifest:
        bundle = open_bundle(good)
        copy_files(bundle, stage, bundle.manifest.files)
        listed = {name: entry for name, entry in bundle.manifest.files.items() if not name.endswith(".weights")}
        return bundle.manifest.model_copy(update={"files": listed})

    with pytest.raises(DovitError, match=r"nothing was changed.*\.weights, which the manifest does not list"):
        write_bundle(target, fill)
    open_bundle(target)


def test_everything_is_on_the_disk_before_the_switch(
    good: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(good, tmp_path / "target"))
    events: list[tuple[str, str]] = []

    def recorded(what: str, real: Callable[..., Any], name: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            events.append((what, Path(name(*arguments)).name))
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", recorded("sync", os.fsync, lambda number: os.readlink(f"/proc/self/fd/{number}")))
    monkeypatch.setattr(os, "replace", recorded("rename", os.replace, lambda old, new: new))
    copy_bundle(other, target)
    switch = events.index(("rename", "bundle.json"))
    for name in map(Path, open_bundle(other).manifest.files):
        moved = events.index(("rename", name.name))
        assert events.index(("sync", name.name)) < moved < switch
        assert ("sync", name.parent.name) in events[moved:switch], "its folder's entry as well"
    assert ("sync", "bundle.json") in events[:switch] and ("sync", "target") in events[switch:]
