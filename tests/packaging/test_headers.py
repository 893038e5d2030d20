"""Where the build takes TensorRT's headers from, and what it says where it finds none: cmake's own output."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from native import ROOT, TOOLS

from dovit import plugins

CMAKE = shutil.which("cmake", path=TOOLS)

pytestmark = [
    pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}"),
    pytest.mark.skipif(CMAKE is None, reason="no cmake"),
]


def left_out(build: Path, **environment: str) -> str:
    command = [str(CMAKE), "-S", str(ROOT), "-B", str(build)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # an install goes on without
    return (build / "left_out.txt").read_text().strip()


def test_tensorrt_root_has_to_hold_them(tmp_path: Path) -> None:
    assert left_out(tmp_path / "build", TENSORRT_ROOT=str(tmp_path)) == (
        "CUDA plugins and kernels (TensorRT headers: not found in TENSORRT_ROOT)"
    )


@pytest.mark.parametrize("prefix", ["NV_TENSORRT", "TRT_{}_ENTERPRISE"])
def test_old_ones_are_refused(prefix: str, tmp_path: Path) -> None:
    include = tmp_path / "tensorrt" / "include"
    include.mkdir(parents=True)
    (include / "NvInferRuntime.h").touch()
    macros = [prefix.format(part) if "{}" in prefix else f"{prefix}_{part}" for part in ("MAJOR", "MINOR")]
    (include / "NvInferVersion.h").write_text(f"#define {macros[0]} 10 //!< major\n#define {macros[1]} 6\n")
    assert left_out(tmp_path / "build", TENSORRT_ROOT=str(tmp_path / "tensorrt")) == (
        f"CUDA plugins and kernels (TensorRT headers: 10.6 in {include} is older than 10.7)"
    )


def test_nothing_is_downloaded_where_that_is_off(tmp_path: Path) -> None:
    if Path("/usr/local/tensorrt").is_dir() or list(Path("/usr/include").rglob("NvInfer.h")):
        pytest.skip("this machine has TensorRT's headers")
    assert left_out(tmp_path / "build", TENSORRT_ROOT="", DOVIT_DOWNLOAD_HEADERS="OFF") == (
        "CUDA plugins and kernels (TensorRT headers: not found (DOVIT_DOWNLOAD_HEADERS is off), "
        "set TENSORRT_ROOT to a TensorRT 10.7 or newer)"
    )
    assert not (tmp_path / "build" / "tensorrt-headers").exists()
