"""fp8, and the plans of quantized bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from installed import require
from quantized import constants, export

from dovit.engines.scenes import street_scenes
from dovit.export.quantization import measure
from dovit.export.quantization.bundle import Calibration, quantize
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.write import write_bundle
from dovit.runtime.cli.options import BackendChoice
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load


@pytest.fixture(scope="module")
def fp8(trained: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("fp8")
    scenes = Calibration(street_scenes(trained.manifest, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MIN_LABELS_EQUAL", 0.9)
        write_bundle(folder, lambda stage: quantize(trained, "fp8", scenes, stage, lambda _: None))
    return open_bundle(folder)


def test_weights_and_inputs_of_fp8_are_those_of_the_format(trained: Bundle, fp8: Bundle) -> None:
    """Weights: E4M3 of the original over its column's largest value, in ml_dtypes' and in torch's rounding."""
    found, original = constants(fp8), constants(trained)
    name = "layers.4.attn.proj"
    weight = original[f"{name}.weight.T"]
    scale = np.abs(weight).max(axis=0) / np.float32(448)
    np.testing.assert_allclose(found[f"{name}/weight_scale"], scale, rtol=1e-6)
    expected = torch.from_numpy(weight / found[f"{name}/weight_scale"]).to(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(found[f"{name}/weight_quantized"].astype(np.float32), expected)
    assert fp8.manifest.quantization is not None
    assert all(0.003 < fp8.manifest.quantization.errors[step] < 0.05 for step in ("stem", "block2"))


def test_fp8_is_for_gpus_that_have_it(fp8: Bundle, tmp_path: Path) -> None:
    assert all(step.openvino == () for step in fp8.manifest.steps)
    with pytest.raises(DovitError, match="its products are fp8, which no CPU computes"):
        load(fp8.root)
    require("tensorrt_rtx")
    options = {"engine": fp8.root, "out": tmp_path / "out", "backend": BackendChoice.tensorrt_rtx, "verify": False}
    for given, found in ((None, "portable"), (["8.6,12.0"], "8.6, 12.0")):
        with pytest.raises(UsageError, match=rf"8\.9 or newer, and these are for {found}"):
            export(**options, compute_capability=given)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_tensorrt_rtx_builds_the_products(
    kind: str, int8: Bundle, fp8: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attention is fused as it is in fp16, and fp16's rounding beside int8 or fp8 is within its bounds."""
    require("tensorrt_rtx")
    bundle = {"int8": int8, "fp8": fp8}[kind]
    export(
        engine=bundle.root, out=tmp_path, backend=BackendChoice.tensorrt_rtx, compute_capability=["8.9"], no_cache=True
    )
    [plans] = open_bundle(tmp_path).manifest.plans
    built = {step.name: step.plan for step in plans.steps if step.plan}
    assert set(built) == {"stem", "block2", "block3", "block4", "decoder"} and plans.accuracy is not None
    assert [(plan.attentions, plan.fused_attentions) for plan in built.values()] == [(3, 3)] * 4 + [(0, 0)]
    assert [plan.parameters for plan in built.values()] == [step.parameters for step in bundle.manifest.steps]
