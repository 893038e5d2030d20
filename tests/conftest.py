"""For all tests: plans are cached in a folder of the run's own, and tests that need a GPU say why they are skipped."""

import ctypes
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from emulate import compile_kernels

from dovit.runtime.machine import find_gpu


@pytest.fixture(scope="session", autouse=True)
def own_plan_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels' C interface on memory of the host: see emulator/emulator.h."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to emulate a GPU with")
    folder = tmp_path_factory.mktemp("emulated")
    compile_kernels("g++", folder, folder / "libemulated.so", "-shared", "-fPIC")
    return ctypes.CDLL(str(folder / "libemulated.so"))


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = find_gpu()
    if isinstance(gpu, str):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=gpu))
