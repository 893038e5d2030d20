"""What quantized products compute, what runs in int8, and which products are left out."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import make_bundle
from installed import require
from models import randomised, small_config
from quantized import constants, quantized
from torch import Tensor, nn

from dovit.engines.scenes import street_scenes
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState
from dovit.export.quantization import measure
from dovit.export.quantization.bundle import Calibration
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load
from dovit.runtime.providers import Provider

ASSET = Path(__file__).parents[3] / "assets" / "streets-tiny.safetensors"


class QuantizedLinear(nn.Module):
    """x → x/s - shift, rounded to whole multiples of a scale, times rounded weights: as the file says, in float64."""

    def __init__(self, name: str, values: dict[str, np.ndarray], norm: nn.Module | None) -> None:
        super().__init__()

        def value(suffix: str) -> Tensor:
            return torch.from_numpy(np.array(values[f"{name}/{suffix}"], np.float64))

        self.scale, self.weight = value("scale"), value("weight_quantized") * value("weight_scale")
        self.shift = -value("shift") if f"{name}/shift" in values else torch.zeros(())
        bias = next(key for key in values if key.startswith(f"{name}/") and key.endswith("bias") and "norm" not in key)
        self.bias = torch.from_numpy(values[bias].astype(np.float64))
        self.smoothing: Tensor | float = 1.0
        smoothed = [
            key for key in values if key.startswith(f"{name}/") and key.endswith(("norm1.weight", "norm2.weight"))
        ]
        if norm is not None:
            assert len(smoothed) == 1
            self.smoothing = norm.weight.detach().double() / torch.from_numpy(values[smoothed[0]].astype(np.float64))
        else:
            assert not smoothed

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.clamp(torch.round((x / self.smoothing - self.shift) / self.scale), -128, 127)
        return steps * self.scale @ self.weight + self.bias


def in_float64(model: DoViT, values: dict[str, np.ndarray]) -> DoViT:
    model = model.double()
    for number, layer in enumerate(model.backbone.layers, start=1):
        for part, child, norm in (
            (layer.attn, "qkv", layer.norm1),
            (layer.attn, "proj", None),
            (layer.mlp, "fc1", layer.norm2),
            (layer.mlp, "fc2", None),
        ):
            name = f"layers.{number}.{'attn' if part is layer.attn else 'mlp'}.{child}"
            setattr(part, child, QuantizedLinear(name, values, norm))
    return model


def test_the_steps_compute_what_their_constants_say(trained: Bundle, int8: Bundle) -> None:
    """Against the torch model in float64 with the formula of a quantized product in place of every Linear of its layers."""
    image = street_scenes(int8.manifest, 1)[0].image[None]
    session = load(int8.root, provider="cpu")
    result = session.chain.run(image, int8.manifest.thresholds, range(int8.manifest.tokens + 1), keep_tensors=True)
    model = in_float64(load_model(ASSET, ReadOptions()).model, constants(int8))
    with torch.inference_mode():
        tokens = model.embed(torch.from_numpy(image)).double()
        for layer in model.backbone.layers[:3]:
            tokens = layer(tokens)
    expected, made = tokens.numpy(), result.tensors["tokens1"]
    unquantized = load(trained.root, provider="cpu").chain.run(
        image, int8.manifest.thresholds, range(int8.manifest.tokens + 1), keep_tensors=True
    )
    error = np.sqrt(np.mean((made - expected) ** 2) / np.mean(expected**2))
    loss = np.sqrt(np.mean((unquantized.tensors["tokens1"] - expected) ** 2) / np.mean(expected**2))
    assert error < loss / 3, (
        "what is left are values next to the middle of two steps, which float32 rounds the other way"
    )
    assert 1e-3 < loss < 0.03


def test_a_trained_model_is_within_the_bounds(trained: Bundle, int8: Bundle) -> None:
    """Every product in int8, a third of the size, and what was measured is what a session finds."""
    manifest = int8.manifest
    found = manifest.quantization
    assert found is not None and manifest.precision == "int8"
    assert found.products == {"stem": 12, "block2": 12, "block3": 12, "block4": 12, "decoder": 0}
    assert (found.calibrated, found.measured, found.held_out, found.left) == (6, 2, True, ())
    assert all(0.001 < found.errors[name] < 0.03 for name in ("stem", "block2", "block3", "block4"))
    assert found.errors["decoder"] == 0
    sizes = [sum(entry.size for entry in m.files.values()) for m in (manifest, trained.manifest)]
    assert sizes[0] < 0.36 * sizes[1]
    held_out = street_scenes(manifest, 8)[3::4]
    sessions = [load(b.root, provider="cpu") for b in (int8, trained)]
    equal = np.mean([np.mean(sessions[0](s.image).labels == sessions[1](s.image).labels) for s in held_out])
    assert found.label_agreement == pytest.approx(equal, abs=1e-3)
    assert found.miou is not None and abs(found.miou[0] - found.miou[1]) < 1


def test_a_reference_keeps_the_logits_of_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(randomised(small_config(layers=(1,), depth=2)), tmp_path)
    bundle = open_bundle(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (4, *bundle.manifest.image_size, 3), dtype=np.uint8)
    logits: list[weakref.ref[np.ndarray]] = []
    run = measure._run

    def recorded(*given: Any, **settings: Any) -> ChainResult:
        result = run(*given, **settings)
        logits.append(weakref.ref(result.logits))
        return result

    monkeypatch.setattr(measure, "_run", recorded)
    reference = measure.Reference(bundle, [measure.Scene(image) for image in noise], lambda _: None)
    assert len(reference.labels) == len(reference.fates) == 4
    assert [one() is not None for one in logits] == [True, False, False, False]


def test_openvino_executes_the_products_in_int8(int8: Bundle) -> None:
    require("openvino")
    from dovit.runtime.openvino.engine import OpenVinoEngine

    for step in int8.manifest.steps[:2]:
        engine = OpenVinoEngine(step.name, [int8.path(f) for f in step.openvino], threads=1, precision="fp32")
        kinds = [
            tuple(node.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision"))
            for model in engine.models
            for node in model.get_runtime_model().get_ordered_ops()
        ]
        assert kinds.count(("FullyConnected", "i8")) == 12, kinds
    image = street_scenes(int8.manifest, 1)[0].image
    labels = [load(int8.root, provider=p, check_accuracy=False)(image).labels for p in ("cpu", "openvino")]
    assert np.mean(labels[0] == labels[1]) > 0.98


def test_openvino_is_not_taken_where_its_sums_saturate(
    trained: Bundle, int8: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto takes ONNX Runtime, and OpenVINO by name is refused unless the check is left out; float32 bundles are as before."""
    require("openvino")
    monkeypatch.delenv("DOVIT_PROVIDER", raising=False)
    monkeypatch.setattr("dovit.runtime.providers.int8_sums_saturate", lambda: True)
    session = load(int8.root)
    assert session.provider == "cpu" and "this CPU has no VNNI" in str(session.provider_reason)
    with pytest.raises(
        UsageError, match=r"sums of int8 products saturate there: take the provider cpu.*check_accuracy"
    ):
        load(int8.root, provider="openvino")
    assert load(int8.root, provider="openvino", check_accuracy=False).provider == "openvino"
    assert load(trained.root, provider="openvino").provider == "openvino"
    monkeypatch.setattr("dovit.runtime.providers.int8_sums_saturate", lambda: False)
    assert load(int8.root, provider="openvino").provider == "openvino"


def test_the_costliest_products_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One product's input has a channel that is far larger than the others: it is left out, and the others are not."""
    model = randomised(small_config(layers=(1,), depth=2))
    with torch.no_grad():
        model.backbone.layers[0].mlp.fc1.bias[0] = 500  # GELU leaves it as it is
        model.backbone.layers[0].mlp.fc2.weight[:, 0] *= 0.01
    make_bundle(model, tmp_path / "float32")
    bundle = open_bundle(tmp_path / "float32")
    noise = np.random.default_rng(0).integers(0, 256, (3, *bundle.manifest.image_size, 3), dtype=np.uint8)
    calibration = Calibration([measure.Scene(image) for image in noise])
    monkeypatch.setattr(measure, "MIN_LABELS_EQUAL", 0.0)
    every = quantized(bundle, tmp_path / "every", calibration).manifest.quantization
    assert every is not None and every.left == () and every.label_agreement < 1
    bound = (1 + every.label_agreement) / 2
    monkeypatch.setattr(measure, "MIN_LABELS_EQUAL", bound)
    found = quantized(bundle, tmp_path / "some", calibration).manifest.quantization
    assert found is not None and found.label_agreement >= bound
    assert found.left[0].product == "layers.1.mlp.fc2"
    assert 0 < len(found.left) < 4 and sum(found.products.values()) + len(found.left) == 8
    costs = [one.cost for one in found.left]
    assert costs == sorted(costs, reverse=True) and 0 < costs[-1] <= costs[0] < 0.5
    monkeypatch.setattr(measure, "MIN_LABELS_EQUAL", 1.1)
    with pytest.raises(DovitError, match=r"no product of this model can be quantized: .* use --precision fp32"):
        quantized(bundle, tmp_path / "none", calibration)
    assert not (tmp_path / "none").exists()


def test_lenses_stay_in_floating_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that see neighbours too: of the tokens that quantized layers make, they make what the torch model's make."""
    model = randomised(small_config("segmenter-linear", head="neighbours"))
    make_bundle(model, tmp_path / "float32")
    bundle = open_bundle(tmp_path / "float32")
    noise = np.random.default_rng(0).integers(0, 256, (2, *bundle.manifest.image_size, 3), dtype=np.uint8)
    monkeypatch.setattr(measure, "MIN_LABELS_EQUAL", 0.0)
    made = quantized(bundle, tmp_path / "int8", Calibration([measure.Scene(image) for image in noise]))
    found = made.manifest.quantization
    assert found is not None and found.products == {"stem": 8, "block2": 8, "block3": 8, "decoder": 0}
    every = range(made.manifest.tokens + 1)
    both = [
        load(b.root, provider="cpu").chain.run(noise[:1], (0.5, 0.5), every, counts=(13, 6), keep_tensors=True).tensors
        for b in (made, bundle)
    ]
    prefix = model.config.prefix
    for number in (0, 1):
        tensors = {name: torch.from_numpy(value) for name, value in both[0].items()}
        start = TokenState.start(torch.zeros(1, prefix + made.manifest.tokens, 64), prefix)
        full = tensors.get(f"full{number}", start.full)  # of which nothing is read where all tokens are left
        state = replace(start, tokens=tensors[f"tokens{number + 1}"], index=tensors[f"index{number}"], full=full)
        with torch.inference_mode():
            expected = model.through_lens(number, state).tokens
        torch.testing.assert_close(tensors[f"lens{number + 1}"], expected, rtol=1e-4, atol=1e-4)
        assert np.abs(both[0][f"lens{number + 1}"] - both[1][f"lens{number + 1}"]).max() > 1e-3, "layers are quantized"


def test_a_block_that_no_token_reaches_is_calibrated(tmp_path: Path) -> None:
    """At ξ = 0 every token stops at the first decision: the later blocks are observed with every token kept."""
    model = randomised(small_config())
    config = model.config.model_copy(update={"thresholds": (0.0,) * len(model.config.decisions)})
    model.config = config
    make_bundle(model, tmp_path / "float32")
    bundle = open_bundle(tmp_path / "float32")
    noise = np.random.default_rng(0).integers(0, 256, (2, *bundle.manifest.image_size, 3), dtype=np.uint8)
    made = quantized(bundle, tmp_path / "int8", Calibration([measure.Scene(image) for image in noise]))
    assert made.manifest.quantization is not None
    assert set(made.manifest.quantization.errors) < {step.name for step in made.manifest.steps}
    session = load(made.root, provider="cpu")
    assert session(noise[0], threshold=1.0).kept[-1] == made.manifest.tokens


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_batch_merged_by_cell_is_its_images_one_by_one(provider: Provider, tmp_path: Path) -> None:
    """In int8, with as many tokens of each."""
    if provider == "openvino":
        require("openvino")
    make_bundle(randomised(small_config("segmenter-linear", head="conv-cells")), tmp_path / "float32")
    bundle = open_bundle(tmp_path / "float32")
    noise = np.random.default_rng(0).integers(0, 256, (3, *bundle.manifest.image_size, 3), dtype=np.uint8)
    made = quantized(bundle, tmp_path / "int8", Calibration([measure.Scene(image) for image in noise]))
    chain, xi = load(made.root, provider=provider, check_accuracy=False).chain, (0.5, 0.5)
    assert isinstance(chain, Chain)
    every = range(made.manifest.tokens + 1)
    together = chain.run(noise, xi, every, counts=(13, 5))
    for number, image in enumerate(noise):
        alone = chain.run(image[None], xi, every, counts=(13, 5))
        for one, other in zip(alone.decisions, together.decisions, strict=True):
            assert one.keep[0].tolist() == other.keep[number].tolist()
        np.testing.assert_allclose(
            together.logits[number], alone.logits[0], atol=1e-3 * np.abs(alone.logits).max(), rtol=0
        )
