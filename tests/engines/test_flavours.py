"""Which builder is chosen, and the error where there is none."""

import sys
import types

import pytest
from installed import require

from dovit.engines import backends, flavours
from dovit.engines.backends import list_backends
from dovit.engines.flavours import check_builder, choose_flavour, load_module, target_capabilities, version_of
from dovit.runtime import plans
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.machine import Gpu
from dovit.runtime.plans import DetectedTensorRT, known_capabilities

ADA = Gpu("NVIDIA RTX 4090", "8.9", (13, 0))


def fake(monkeypatch: pytest.MonkeyPatch, module: str, version: str | None) -> None:
    if version is None:
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    else:
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(__version__=version))


def gpu(monkeypatch: pytest.MonkeyPatch, found: Gpu | str) -> None:
    monkeypatch.setattr(flavours, "find_gpu", lambda: found)


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT where it can build, else RTX, else nothing."""
    fake(monkeypatch, "tensorrt", "11.1.0.5")
    fake(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    gpu(monkeypatch, ADA)
    assert choose_flavour("auto") == "tensorrt"
    gpu(monkeypatch, "no NVIDIA GPU was found")
    assert choose_flavour("auto") == "tensorrt-rtx"
    fake(monkeypatch, "tensorrt_rtx", None)
    assert choose_flavour("auto") is None and choose_flavour("onnxruntime") is None
    with pytest.raises(UsageError, match="unknown backend 'cuda'"):
        choose_flavour("cuda")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "tensorrt", None)
    with pytest.raises(DovitError, match=r"TensorRT is not installed here.*pip install 'dovit\[tensorrt\]'"):
        check_builder("tensorrt")
    fake(monkeypatch, "tensorrt", "10.6.0")
    with pytest.raises(DovitError, match=r"TensorRT 10\.6\.0 is too old, 10\.7 or newer"):
        load_module("tensorrt")
    fake(monkeypatch, "tensorrt", "10.7.0")
    gpu(monkeypatch, "no NVIDIA GPU was found")
    with pytest.raises(DovitError, match="builds on the GPU that the plan will run on, but no NVIDIA GPU was found"):
        check_builder("tensorrt")
    gpu(monkeypatch, ADA)
    assert check_builder("tensorrt") == "10.7.0"
    fake(monkeypatch, "polygraphy", None)
    with pytest.raises(DovitError, match="building needs the package polygraphy"):
        check_builder("tensorrt")


def test_full_tensorrt_builds_for_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, ADA)
    assert target_capabilities("tensorrt", ()) == target_capabilities("tensorrt", ("8.9",)) == ("8.9",)
    with pytest.raises(UsageError, match=r"builds for the GPU that is present \(NVIDIA RTX 4090, 8\.9\)"):
        target_capabilities("tensorrt", ("8.9", "12.0"))


def test_backends_of_this_machine() -> None:
    reports = {report.name: report for report in list_backends()}
    assert list(reports) == ["tensorrt", "tensorrt-rtx", "onnxruntime"]
    assert reports["onnxruntime"].run == "yes, on the CPU"
    assert all(report.build and report.run for report in reports.values())


def test_what_a_backend_can_run_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that TensorRT-RTX does not support is reported as such."""
    found = {
        "tensorrt": DetectedTensorRT(None, ADA),
        "tensorrt-rtx": DetectedTensorRT("1.7.1.116", ADA, ("8.9", "12.0")),
    }
    monkeypatch.setattr(backends, "detect_tensorrt", found.get)
    monkeypatch.setattr(plans.plugins, "left_out", lambda: None)
    runs = {report.name: report.run for report in list_backends()}
    assert runs["tensorrt"] == "no: not installed here: pip install 'dovit[tensorrt]'"
    assert runs["tensorrt-rtx"].startswith("yes, on NVIDIA RTX 4090")
    found["tensorrt"] = DetectedTensorRT(None, "the package cuda is missing: pip install 'dovit[tensorrt-rtx]'")
    assert (
        list_backends()[0].run == "no: not installed here: pip install 'dovit[tensorrt]'"
    )  # which brings cuda as well
    found["tensorrt-rtx"] = DetectedTensorRT("1.7.1.116", Gpu("H100", "9.0", (13, 0)), ("8.9", "12.0"))
    assert "runs on compute capability 8.9, 12.0, this GPU (H100) has 9.0" in list_backends()[1].run
    monkeypatch.setattr(plans.plugins, "left_out", lambda: "CUDA plugins and kernels (nvcc: not found)")
    found["tensorrt-rtx"] = DetectedTensorRT("1.7.1.116", ADA, ("8.9", "12.0"))
    assert list_backends()[1].run == "no: CUDA plugins and kernels (nvcc: not found)"


def test_the_capabilities_that_tensorrt_rtx_knows() -> None:
    """The installed version supports those that docs/gpu-support.md lists."""
    module = require("tensorrt_rtx")
    assert known_capabilities(module) == ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    assert known_capabilities(types.ModuleType("tensorrt")) is None


@pytest.mark.parametrize(("text", "expected"), [("1.7.1.116", (1, 7)), ("10.13.0.35", (10, 13)), ("11.0", (11, 0))])
def test_versions(text: str, expected: tuple[int, int]) -> None:
    assert version_of(text) == expected
