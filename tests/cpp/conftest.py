"""libdovit_runtime, built from this checkout, and a bundle of the trained model for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nlohmann_json
import pytest
from gpu_images import CAPACITIES, VERSIONS, Call
from gpu_process import Setup, gpu_process
from models import random_images, randomised, small_config, spreading_thresholds
from native import ONNXRUNTIME, ROOT, export, has_header, run, skip_unless_installed, tensorrt_rtx
from plan_bundles import make_plan_bundle
from shared import COMPILED, locked, made_once
from stand_in import StandIn, stand_in

from dovit.export.model import DoViT

BATCH_SIZE = {"release": 16}  # of other presets all at a time
# with ThreadSanitizer only the programs in which threads share a session are built
TARGETS = {"thread": ["sessions", "gpu_sessions"]}


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
                # many sources at a time, which takes two thirds of the time of one by one
                "-DCMAKE_UNITY_BUILD=ON",
                f"-DCMAKE_UNITY_BUILD_BATCH_SIZE={BATCH_SIZE.get(preset, 0)}",
                *([f"-DDOVIT_TEST_TENSORRT_RTX={rtx[0]};{rtx[1]}"] if rtx else []),
            ]

            def compile(_: Path) -> None:
                run("cmake", "--preset", preset, "-S", ROOT / "runtime" / "cpp", "-B", folder, *settings)
                targets = TARGETS.get(preset, ["all"])
                run("cmake", "--build", folder, "--parallel", "1", "--target", *targets)

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


@pytest.fixture(scope="session")
def on_gpu() -> Iterator[Call]:
    with gpu_process() as call:
        yield call


@pytest.fixture(scope="session")
def make(
    build: Callable[[str], Path], stand_in_gpu: StandIn, library_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Setup, DoViT]]:
    made: dict[tuple[object, ...], tuple[Setup, DoViT]] = {}

    def one(
        decoder: str = "setr-naive", head: str = "conv", prefix: int = 1, library: str = "tensorrt-rtx"
    ) -> tuple[Setup, DoViT]:
        key = (decoder, head, prefix, library)
        path = {
            "tensorrt10": stand_in_gpu.tensorrt,
            "tensorrt11": stand_in_gpu.tensorrt11,
            "tensorrt-rtx": stand_in_gpu.tensorrt_rtx,
        }[library]
        if path is None:
            pytest.skip("TensorRT 10's headers are not here: set TENSORRT_ROOT, or have pip download kernel-lens")
        if key not in made:
            model = randomised(small_config(decoder, prefix, head))
            flavour = library.rstrip("01")
            bundle = make_plan_bundle(
                model, tmp_path_factory.mktemp("gpu") / "bundle", CAPACITIES, flavour, VERSIONS[library]
            )
            runtime = build("release") / "libdovit_runtime.so"
            made[key] = Setup(stand_in_gpu, runtime, library_path, bundle, flavour, path), model
        return made[key]

    return one


@pytest.fixture(scope="session")
def setup(make: Callable[..., tuple[Setup, DoViT]]) -> Setup:
    return make()[0]


@pytest.fixture(scope="session")
def some(make: Callable[..., tuple[Setup, DoViT]]) -> dict[str, Any]:
    """Settings with which some tokens stop at each decision."""
    _, model = make()
    xi = spreading_thresholds(model, random_images(model.config), (0.7, 0.7), list(CAPACITIES))
    return {"schedule": "bucketed", "threshold": xi}
