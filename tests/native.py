"""Building and running the C++ runtime from the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import pytest
from typed import call

from dovit.runtime.plans import detect_tensorrt, unsupported_gpu

ROOT = Path(__file__).parents[1]
ONNXRUNTIME = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"), None)
TENSORRT_RTX = find_spec("tensorrt_rtx_libs")  # with libtensorrt_rtx.so.1 beside
PACKAGES = {"cmake": "cmake", "ninja": "ninja-build", "g++": "g++"}
TOOLS = os.pathsep.join(
    [sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
)  # where pip puts cmake and ninja, first


def run(*command: str | Path, **environment: str) -> str:
    """Run a command and return what it printed; a failure shows all of that."""
    done = subprocess.run(command, env=os.environ | {"PATH": TOOLS} | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def tensorrt_rtx() -> tuple[Path, str] | None:
    """TensorRT-RTX's library and its version, where the package is installed."""
    if TENSORRT_RTX is None or TENSORRT_RTX.origin is None:
        return None
    return Path(TENSORRT_RTX.origin).with_name("libtensorrt_rtx.so.1"), metadata.version("tensorrt_rtx_cu13_libs")


def skip_unless_rtx_runs() -> None:
    """Skip where TensorRT-RTX is missing, or does not know this GPU, with the reason."""
    found = detect_tensorrt("tensorrt-rtx")
    if found.version is None:
        pytest.skip("TensorRT-RTX is not installed")
    if isinstance(found.gpu, str):
        pytest.skip(found.gpu)
    unknown = unsupported_gpu("tensorrt-rtx", found)
    if unknown:
        pytest.skip(unknown)


def export(*arguments: str | Path) -> None:
    """dovit-export in this process."""
    from dovit.export import cli

    assert not call(cli, *arguments)


def skip_unless_installed(*programs: str) -> None:
    """Skip the test where a program is missing, with the Debian package that has it."""
    missing = [PACKAGES.get(name, name) for name in programs if shutil.which(name, path=TOOLS) is None]
    if missing:
        pytest.skip(f"to build libdovit_runtime, install {' '.join(missing)}")


def has_header(name: str) -> bool:
    """Whether g++ finds a header."""
    command = ["g++", "-x", "c++", "-fsyntax-only", "-include", name, os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0
