"""Torch in place of plans: described as the lowering describes plans, and the whole chain over it, on the fake GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import make_bundle
from models import random_images, randomised, small_config, spreading_thresholds
from torch_chains import torch_chain

from dovit.benchmarks.torch_blocks import TorchBlocks
from dovit.benchmarks.torch_candidates import Dense
from dovit.benchmarks.torch_plans import manifest_of, plans_of
from dovit.engines.lowering.lower import lower_bundle
from dovit.export.capacities import default_capacities
from dovit.export.checkpoints import load_model
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.errors import UsageError
from dovit.runtime.images import read_image
from dovit.runtime.loading import load
from dovit.runtime.resize import resize_image

ASSETS = Path(__file__).parents[2] / "assets"
CAPACITIES = (0, 5, 11, 17, 24)
KINDS = [
    ("setr-naive", "conv", 1, None),
    ("setr-mla", "setr-k3", 1, None),
    ("segmenter-mask", "fcn", 2, None),
    ("segmenter-linear", "setr-k1", 0, None),
    ("segmenter-linear", "corrected-cells", 1, None),
    ("setr-naive", "neighbours-cells", 1, None),
    ("setr-mla", "fcn-cells", 2, None),
    ("segmenter-linear-taps", "conv-cells", 5, "rotary"),
    ("segmenter-linear-taps", "neighbours-cells", 1, None),
]


def test_what_blocks_in_torch_would_leave_out_is_refused() -> None:
    model = randomised(small_config("eomt", family="registers"))
    makers = (lambda: TorchBlocks(model, "fp32"), lambda: Dense(model), lambda: plans_of(model, "fp32", 1))
    for make in makers:
        with pytest.raises(UsageError, match="does not run EoMT's queries"):
            make()


@pytest.mark.parametrize(
    ("decoder", "head", "prefix", "family", "precision"),
    [
        ("setr-naive", "conv", 1, None, "fp16"),
        ("setr-mla", "setr-k3", 1, None, "fp32"),
        ("segmenter-mask", "conv", 2, None, "bf16"),
        ("segmenter-linear", "corrected-cells", 1, None, "fp16"),
        ("segmenter-mask", "neighbours", 2, None, "bf16"),
        ("setr-mla", "fcn-cells", 2, None, "fp32"),
        ("segmenter-linear-taps", "fcn", 5, "rotary", "fp16"),
    ],
)
def test_described_as_the_lowering_does(
    decoder: str, head: str, prefix: int, family: str | None, precision: Precision, tmp_path: Path
) -> None:
    """Names, types and shapes of every tensor, and the operations in their order; the manifest but for its files."""
    model = randomised(small_config(decoder, prefix, head, family=family, mode="slide", keep_ratio=True))
    written = make_bundle(model, tmp_path, CAPACITIES)
    lowered = [step.described for step in lower_bundle(open_bundle(tmp_path), precision, batch=2)]
    described = plans_of(model, precision, 2).steps
    assert [(step.name, step.step, step.kind) for step in described] == [(s.name, s.step, s.kind) for s in lowered]
    for one, other in zip(described, lowered, strict=True):
        if one.kind == "plan":  # known by name
            assert {s.name: s for s in one.inputs} == {s.name: s for s in other.inputs}
            assert {s.name: s for s in one.outputs} == {s.name: s for s in other.outputs}
        else:
            assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    made = manifest_of(model, CAPACITIES)
    without = {"files", "steps", "source", "dovit_version"}
    assert made.model_dump(exclude=without) == written.model_dump(exclude=without)
    assert [(step.name, step.macs) for step in made.steps] == [(step.name, step.macs) for step in written.steps]


@pytest.mark.parametrize(("decoder", "head", "prefix", "family"), KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_chain_over_torch_is_the_model(
    decoder: str, head: str, prefix: int, family: str | None, batch: int
) -> None:
    """One captured graph, against the torch model itself."""
    model = randomised(small_config(decoder, prefix, head, family=family))
    chain = torch_chain(model, CAPACITIES, batch=batch)
    images = random_images(model.config, batch)
    spread = spreading_thresholds(model, images, (0.7, 0.6), list(CAPACITIES))
    for xi in [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), spread]:
        expected = model(images, xi, CAPACITIES)
        found = chain.run(images.numpy(), xi, CAPACITIES)
        assert len(found.decisions) == len(expected.decisions[0])
        for one, other in zip(found.decisions, expected.decisions[0], strict=True):
            assert np.array_equal(np.take_along_axis(one.index, one.keep, axis=1), other.kept.numpy())
            np.testing.assert_allclose(one.confidence, other.confidence.numpy(), rtol=1e-4)
        labels = model.resize_logits(expected.logits).argmax(dim=1).numpy()
        assert (found.labels == labels).mean() > 0.999
        np.testing.assert_allclose(found.logits, expected.logits.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_computes_nearly_the_same(precision: Precision) -> None:
    model = randomised(small_config("setr-naive", 1, "conv"))
    images = random_images(model.config)
    xi = spreading_thresholds(model, images, (0.7, 0.6))
    found = torch_chain(model, CAPACITIES, precision).run(images.numpy(), xi, CAPACITIES)
    expected = model(images, xi, CAPACITIES)
    apart = np.abs(found.decisions[0].confidence - expected.decisions[0][0].confidence.numpy()).max()
    assert 0 < apart < {"fp16": 0.01, "bf16": 0.1}[precision], "it is to compute in half precision, and not far off"
    labels = model.resize_logits(expected.logits).argmax(dim=1).numpy()
    assert (found.labels == labels).mean() > 0.9


def test_a_trained_model_in_half_precision() -> None:
    """On a drawn street like those it was trained on: float16 changes less than one label in a thousand."""
    model = load_model(ASSETS / "streets-tiny.safetensors").model
    pixels = resize_image(read_image(ASSETS / "street.png"), model.config.image_size)[None].copy()
    chain = torch_chain(model, default_capacities(model.config.tokens), "fp16")
    xi, capacities = model.config.thresholds, chain.manifest.capacities
    found, expected = chain.run(pixels, xi, capacities), model(torch.from_numpy(pixels), xi, capacities)
    labels = model.resize_logits(expected.logits).argmax(dim=1).numpy()
    assert (found.labels == labels).mean() >= 0.999
    assert [d.keep.shape[1] for d in found.decisions] == [d.kept.shape[1] for d in expected.decisions[0]]


def test_the_chain_over_torch_is_the_chain_over_onnx(tmp_path: Path) -> None:
    model = randomised(small_config("setr-mla", 1, "conv"))
    make_bundle(model, tmp_path, CAPACITIES)
    session = load(tmp_path, "onnxruntime")
    images = random_images(model.config)
    xi = spreading_thresholds(model, images, (0.7, 0.6), list(CAPACITIES))
    found, expected = (
        chain.run(images.numpy(), xi, CAPACITIES) for chain in (torch_chain(model, CAPACITIES), session.chain)
    )
    assert [d.keep.tolist() for d in found.decisions] == [d.keep.tolist() for d in expected.decisions]
    assert (found.labels == expected.labels).mean() > 0.999


def test_the_model_stays_as_it_is() -> None:
    """Blocks in half precision are a copy."""
    model = randomised(small_config())
    torch_chain(model, CAPACITIES, "fp16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
