"""For all tests: a folder that the processes of a run share, and a reason where tests that need a GPU are skipped."""

import ctypes
import gc
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import schedule
import shared
from emulate import compile_kernels, kernel_sources
from typed import Typed, call

from dovit.runtime.loading import load
from dovit.runtime.machine import find_gpu
from dovit.runtime.session import Session


@pytest.fixture(scope="session", autouse=True)
def folder_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exports and plans are made once for all processes of a run, and none of an earlier run or of the user's is taken."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(shared.RUN, str(folder / "shared"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("DOVIT_PROVIDER", "cpu")  # whether OpenVINO is installed or not; its own tests ask for it
        yield folder


@pytest.fixture(scope="session", autouse=True)
def exports_share_traces() -> Iterator[None]:
    if "torch" not in sys.modules:
        yield
        return
    from traces import cheaper_exports

    with cheaper_exports():
        yield


@pytest.fixture(scope="module", autouse=True)
def older_objects_frozen() -> None:
    """The garbage collector leaves alone what imports and earlier tests keep, a million objects with torch: an explicit
    gc.collect() takes milliseconds instead of a second, and an export a tenth less."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small model with two decisions; a test that changes its files changes a copy. A module that needs another
    model has a fixture of this name itself."""
    from bundles import make_bundle  # which import torch
    from models import randomised, small_config

    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(small_config()), folder)
    return folder


@pytest.fixture(scope="module")
def session(bundle: Path) -> Iterator[Session]:
    """A session over `bundle`, for tests that only run it."""
    with load(bundle) as session:
        yield session


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.setenv("COLUMNS", "160")

    def typed(module: Any, *arguments: object) -> tuple[int, str, str]:
        status = call(module, *arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return typed


@pytest.fixture(scope="session")
def mmsegmentation() -> None:
    """Imported when a test needs it, not at collection: that takes seconds."""
    from oracle import mmseg

    mmseg.require()


@pytest.fixture(scope="session")
def emulated_library() -> ctypes.CDLL:
    """The kernels' C interface on memory of the host: see emulator/emulator.h."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to emulate a GPU with")

    def build(folder: Path) -> None:
        checks = ["-fsanitize=undefined,bounds", "-fno-sanitize-recover=all", "-static-libubsan"]
        compile_kernels("g++", folder, folder / "libemulated.so", "-shared", "-fPIC", *checks)

    return ctypes.CDLL(str(shared.compiled("emulated", kernel_sources(), build) / "libemulated.so"))


def pytest_configure() -> None:
    """Tests interrupt themselves and programs that they start, also where the run itself ignores signals, as under nohup."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, default in defaults.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """A signal handler that a test or its fixtures leave, as ray.init does, is not there in the next test."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        return (yield)
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:  # None: not from Python
                signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = find_gpu()
    if isinstance(gpu, str):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=gpu))
    if "PYTEST_XDIST_WORKER" in os.environ:
        schedule.longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return schedule.by_file(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help=f"write {schedule.FILE.name} after a whole run")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    schedule.add(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("record_durations") and "PYTEST_XDIST_WORKER" not in os.environ:
        schedule.write()
