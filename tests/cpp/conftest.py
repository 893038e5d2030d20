"""libdovit_runtime, built from this checkout, and a bundle of the trained model for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nlohmann_json
import pytest
from native import ONNXRUNTIME, ROOT, export, has_header, run, skip_unless_installed, tensorrt_rtx
from shared import COMPILED, locked, made_once
from stand_in import StandIn, stand_in


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The trained model, exported."""

    def make(folder: Path) -> None:
        checkpoint = ROOT / "assets" / "streets-tiny.safetensors"
        export("--ckpt", checkpoint, "--out", folder / "engines", "--backend", "onnxruntime")

    return made_once("streets", make) / "engines"


@pytest.fixture(scope="session")
def library_path() -> Path:
    """ONNX Runtime's library, as the wheel has it."""
    if ONNXRUNTIME is None:
        pytest.skip("this onnxruntime wheel has no libonnxruntime.so to open")
    return ONNXRUNTIME


@pytest.fixture(scope="session")
def build(bundle: Path, library_path: Path) -> Callable[[str], Path]:
    """Builds a preset of runtime/cpp, with its tests, and returns the build folder, build/tests/cpp-PRESET. It stays there, so
    that only what has changed is compiled in the next run."""
    skip_unless_installed("cmake", "ninja", "g++")
    if not has_header("openssl/evp.h"):
        pytest.skip("to build libdovit_runtime, install libssl-dev")
    json_headers = Path(nlohmann_json.__file__).parent / "include"
    rtx = tensorrt_rtx()
    built: dict[str, Path] = {}

    def make(preset: str) -> Path:
        if preset not in built:
            folder = COMPILED / f"cpp-{preset}"
            settings = [
                f"-DDOVIT_TEST_BUNDLE={bundle}",
                f"-DDOVIT_TEST_ONNXRUNTIME={library_path}",
                f"-DNLOHMANN_JSON_INCLUDE_DIR={json_headers}",
                *([f"-DDOVIT_TEST_TENSORRT_RTX={rtx[0]};{rtx[1]}"] if rtx else []),
            ]

            def compile(_: Path) -> None:
                run("cmake", "--preset", preset, "-S", ROOT / "runtime" / "cpp", "-B", folder, *settings)
                run("cmake", "--build", folder, "--parallel", "1")

            with locked(COMPILED / f".cpp-{preset}.lock"):
                made_once(f"cpp-{preset}", compile)  # not again in this run
            built[preset] = folder
        return built[preset]

    return make


@pytest.fixture(scope="session")
def installed(build: Callable[[str], Path]) -> Path:
    """The release build, as `cmake --install` leaves it."""
    release = build("release")
    return made_once("prefix", lambda folder: run("cmake", "--install", release, "--prefix", folder))


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
def stand_in_gpu() -> StandIn:
    """Libraries that stand in for the CUDA driver, TensorRT and the plugins."""
    return stand_in()
