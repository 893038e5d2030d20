"""libdovit_runtime, built from this checkout, and a bundle of the trained model for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nlohmann_json
import pytest
from native import ONNXRUNTIME, ROOT, export, has_header, refuse_unless_here, run, tensorrt_rtx
from stand_in import StandIn, build_stand_in


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model, exported."""
    out = tmp_path_factory.mktemp("streets") / "engines"
    export("--ckpt", ROOT / "assets" / "streets-tiny.safetensors", "--out", out, "--backend", "onnxruntime")
    return out


@pytest.fixture(scope="session")
def library_path() -> Path:
    """ONNX Runtime's library, as the wheel has it."""
    if ONNXRUNTIME is None:
        pytest.skip("this onnxruntime wheel has no libonnxruntime.so to open")
    return ONNXRUNTIME


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, bundle: Path, library_path: Path) -> Callable[[str], Path]:
    """Builds a preset of runtime/cpp, with its tests, and returns the build folder."""
    refuse_unless_here("cmake", "ninja", "g++")
    if not has_header("openssl/evp.h"):
        pytest.skip("to build libdovit_runtime, install libssl-dev")
    json_headers = Path(nlohmann_json.__file__).parent / "include"
    rtx = tensorrt_rtx()
    built: dict[str, Path] = {}

    def make(preset: str) -> Path:
        if preset not in built:
            folder = tmp_path_factory.mktemp(preset)
            run(
                "cmake",
                "--preset",
                preset,
                "-S",
                ROOT / "runtime" / "cpp",
                "-B",
                folder,
                f"-DDOVIT_TEST_BUNDLE={bundle}",
                f"-DDOVIT_TEST_ONNXRUNTIME={library_path}",
                f"-DNLOHMANN_JSON_INCLUDE_DIR={json_headers}",
                *([f"-DDOVIT_TEST_TENSORRT_RTX={rtx[0]};{rtx[1]}"] if rtx else []),
            )
            run("cmake", "--build", folder, "--parallel", "1")
            built[preset] = folder
        return built[preset]

    return make


@pytest.fixture(scope="session")
def installed(build: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release build, as `cmake --install` leaves it."""
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build("release"), "--prefix", prefix)
    return prefix


@pytest.fixture(scope="session")
def examples(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/cpp, built against the installed library."""
    if not has_header("png.h"):
        pytest.skip("the examples need libpng: install libpng-dev")
    folder = tmp_path_factory.mktemp("examples")
    run("cmake", "-S", ROOT / "examples" / "cpp", "-B", folder, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", folder, "--parallel", "1")
    return folder


@pytest.fixture(scope="session")
def stand_in_gpu(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Libraries that stand in for the CUDA driver, TensorRT and the plugins."""
    return build_stand_in(tmp_path_factory.mktemp("stand-in"))
