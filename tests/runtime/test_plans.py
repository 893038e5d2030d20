"""The error for a plan that cannot run here names the field of the bundle, the machine's value, and the fix."""

from pathlib import Path

import pytest

from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import Gpu
from dovit.runtime.plans import DetectedTensorRT, check_plans

ROOT = Path("engines")
ADA = Gpu("NVIDIA RTX 4090", "8.9", (13, 0))
PLANS = PlanSet(
    flavour="tensorrt-rtx",
    version="1.7.1.116",
    cuda=13,
    compute_capabilities=("8.9", "12.0"),
    precision="bf16",
    batch=1,
    plugin_version=None,
    workspace_mib=None,
    optimisation_level=None,
    user_allocation=True,
    steps=(),
)
REBUILD = "dovit-export --engine engines --backend tensorrt-rtx --precision bf16"


def test_matching_plans_are_accepted() -> None:
    check_plans(ROOT, PLANS, DetectedTensorRT("1.7.1.116", ADA))
    portable = PLANS.model_copy(update={"compute_capabilities": ()})
    for capability in ("8.0", "8.6", "12.0", "12.1"):
        check_plans(ROOT, portable, DetectedTensorRT("1.7.1.116", Gpu("any", capability, (13, 1))))


@pytest.mark.parametrize(
    ("found", "changes", "message"),
    [
        (DetectedTensorRT(None, ADA), {}, "need TensorRT-RTX 1.7.1.116, which is not installed here: pip install"),
        (
            DetectedTensorRT("1.6.0", ADA),
            {},
            f"version says TensorRT-RTX 1.7.1.116, 1.6.0 is installed; rebuild the plans: {REBUILD}",
        ),
        (
            DetectedTensorRT("1.7.1.116", ADA),
            {"user_allocation": False},
            f"built without REQUIRE_USER_ALLOCATION, and cannot be captured into CUDA graphs; rebuild the plans: {REBUILD}",
        ),
        (
            DetectedTensorRT("1.7.1.116", "no NVIDIA GPU was found"),
            {},
            "need an NVIDIA GPU: no NVIDIA GPU was found; --backend onnx",
        ),
        (
            DetectedTensorRT("1.7.1.116", Gpu("NVIDIA A10", "8.6", (13, 0))),
            {},
            f"compute_capabilities say 8.9, 12.0, this GPU (NVIDIA A10) has 8.6; rebuild the plans: {REBUILD}",
        ),
        (
            DetectedTensorRT("1.7.1.116", Gpu("Tesla T4", "7.5", (13, 0))),
            {"compute_capabilities": ()},
            f"8.0 and newer, this GPU (Tesla T4) has 7.5; rebuild the plans: {REBUILD} --compute-capability 7.5",
        ),
        (
            DetectedTensorRT("1.7.1.116", Gpu("NVIDIA H100", "9.0", (13, 0)), ("8.9", "12.0")),
            {"compute_capabilities": ()},
            "TensorRT-RTX 1.7.1.116 runs on compute capability 8.9, 12.0, this GPU (NVIDIA H100) has 9.0: use",
        ),
        (
            DetectedTensorRT("1.7.1.116", Gpu("NVIDIA RTX 4090", "8.9", (12, 8))),
            {},
            "cuda says 13, this machine's driver runs CUDA 12.8 at most: update the driver",
        ),
    ],
)
def test_contradicting_fields_are_refused(found: DetectedTensorRT, changes: dict, message: str) -> None:
    with pytest.raises(DovitError) as raised:
        check_plans(ROOT, PLANS.model_copy(update=changes), found)
    assert message in str(raised.value)
