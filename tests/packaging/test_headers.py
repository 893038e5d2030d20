"""Where the build finds TensorRT's headers, and its message where it finds none, by cmake's output."""

import os
import shutil
import subprocess
from pathlib import Path

import nlohmann_json
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
def test_old_headers_are_refused(prefix: str, tmp_path: Path) -> None:
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


def configured(build: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """runtime/cpp, whose GPU half is compiled with TensorRT's headers."""
    json_headers = Path(nlohmann_json.__file__).parent / "include"
    command = [CMAKE, "-S", ROOT / "runtime" / "cpp", "-B", build, f"-DNLOHMANN_JSON_INCLUDE_DIR={json_headers}"]
    return subprocess.run(map(str, command), env=os.environ | environment, capture_output=True, text=True)


def test_the_cpp_runtime_goes_without_tensorrt_10_and_never_without_rtx(tmp_path: Path) -> None:
    done = configured(tmp_path / "build", TENSORRT_ROOT=str(tmp_path), TENSORRT_RTX_ROOT="")
    assert done.returncode == 0, done.stderr
    said = [line.removeprefix("-- dovit: ") for line in done.stdout.splitlines() if line.startswith("-- dovit: ")]
    declarations = ROOT / "runtime" / "cpp" / "tensorrt" / "declarations"
    assert said == [
        "left out: plans of TensorRT 10 (TensorRT headers: not found in TENSORRT_ROOT)",
        f"tensorrt11's headers: {declarations}",
        f"tensorrt_rtx's headers: {declarations}",
    ]


@pytest.mark.parametrize("version", [None, "#define TRT_MAJOR_RTX 1\n#define TRT_MINOR_RTX 6\n"])
def test_tensorrt_rtx_root_has_to_hold_those_of_rtx(version: str | None, tmp_path: Path) -> None:
    message = f"TensorRT-RTX headers: not found in TENSORRT_RTX_ROOT ({tmp_path})"
    if version:
        (tmp_path / "include").mkdir()
        (tmp_path / "include" / "NvInferRuntime.h").touch()
        (tmp_path / "include" / "NvInferVersion.h").write_text(version)
        message = f"TensorRT-RTX headers: {tmp_path / 'include'} has not those of TensorRT-RTX 1.7 or newer"
    done = configured(tmp_path / "build", TENSORRT_RTX_ROOT=str(tmp_path), DOVIT_DOWNLOAD_HEADERS="OFF")
    assert done.returncode != 0 and message in " ".join(done.stderr.split()), done.stderr
