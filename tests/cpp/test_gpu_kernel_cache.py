"""What TensorRT-RTX compiles is kept for all contexts of a process, and for the next process, in Python's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gpu_images import VERSIONS, Call
from gpu_process import (
    Setup,
    calls_while_loading,
)

from dovit.runtime.gpu.runtime_cache import cache_file

pytestmark = pytest.mark.xdist_group("cpp")


def kernel_cache(folder: Path) -> Path:
    """Where the Python runtime keeps what TensorRT-RTX compiles."""
    before = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        file = cache_file("tensorrt-rtx", VERSIONS["tensorrt-rtx"], "stand-in GPU", "8.9")
        assert file is not None
        return file
    finally:
        os.environ["XDG_CACHE_HOME"] = before


def test_kernels_are_compiled_once(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    """For all contexts of a process and for the next, in Python's file; engines are shared by the sessions of a process."""
    plans = sum(
        step["kind"] == "plan" for step in json.loads((setup.bundle / "bundle.json").read_text())["plans"][0]["steps"]
    )
    nothing = {"compile": 0, "deserializeCudaEngine": 0}
    calls = on_gpu(calls_while_loading, setup, tmp_path, {"workers": 2})
    shapes = calls[0]["compile"]
    assert shapes > 5 and calls[0]["deserializeCudaEngine"] == plans, calls
    assert calls[1:] == [nothing, nothing, nothing | {"deserializeCudaEngine": plans}]
    file = kernel_cache(tmp_path)
    content = file.read_bytes()
    assert len(content.splitlines()) == 1 + shapes and [*file.parent.iterdir()] == [file]
    for damaged in (b"", content[5:], b"stand-in 1.8.0.1" + content[17:]):
        file.write_bytes(damaged)
        calls = on_gpu(calls_while_loading, setup, tmp_path, {})
        assert calls[0]["compile"] == shapes and file.read_bytes() == content


def test_a_cache_that_cannot_be_kept_is_no_error(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    (tmp_path / "dovit").write_text("no folder")
    calls = on_gpu(calls_while_loading, setup, tmp_path, {})
    assert calls[0]["compile"] == calls[3]["compile"] > 5 and calls[1]["compile"] == 0
    refused = on_gpu(calls_while_loading, setup, tmp_path / "other", {}, "setRuntimeCache")
    assert refused[0]["compile"] == refused[1]["compile"] == calls[0]["compile"]
