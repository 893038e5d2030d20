"""The exported chain under ONNX Runtime computes what the torch model computes and keeps the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import make_bundle
from models import DECODERS, random_images, randomised, small_config, spreading_thresholds

from dovit.benchmarks.gpu_models import dense_of
from dovit.export.graph.dense import dense_graph
from dovit.export.model import DoViT
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.chain import ChainResult
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.loading import load
from dovit.runtime.session import Session

CASES = [(decoder, 1, "setr-k3", None) for decoder in DECODERS] + [
    ("setr-naive", 0, "conv", None),
    ("setr-mla", 2, "setr-k1", None),
    ("segmenter-mask", 0, "fcn", None),
    ("segmenter-linear", 2, "conv", None),
    ("segmenter-linear-taps", 5, "conv", "registers"),
    ("segmenter-linear", 5, "setr-k3", "rotary"),
    ("segmenter-linear-taps", 1, "conv", "rotary-gated"),
    ("eomt", 1, "conv", None),
    ("eomt", 5, "setr-k3", "registers"),
    ("eomt", 5, "conv", "rotary"),
    ("setr-pup", 1, "lens", None),
    ("segmenter-mask", 0, "lens", None),
    ("eomt", 5, "lens", "rotary"),
    ("setr-naive", 2, "setr-k3-unmerged", None),
    ("segmenter-linear", 5, "lens-unmerged", "rotary"),
    ("segmenter-mask", 2, "corrected-unmerged", None),
    ("segmenter-linear", 1, "lens-cells", None),
    ("segmenter-linear", 1, "neighbours-cells", None),
    ("setr-mla", 2, "lens", None),
    ("segmenter-linear-taps", 5, "neighbours-cells", "registers"),
    ("setr-pup", 0, "neighbours", None),
    ("setr-mla", 0, "setr-k3-cells", None),
    ("segmenter-mask", 5, "corrected-cells", "rotary"),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[DoViT, Session]:
    decoder, prefix, head, family = request.param
    model = randomised(small_config(decoder, prefix, head, family=family), seed=5)
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(model, folder)
    return model, load(folder)


def check(model: DoViT, result: ChainResult, images: torch.Tensor, thresholds: tuple, capacities: tuple | None) -> None:
    with torch.inference_mode():
        expected = model(images, thresholds, capacities)
        labels = model.resize_logits(expected.logits).argmax(1)
    logits = expected.logits.numpy()
    assert np.abs(result.logits - logits).max() <= 1e-4 * np.abs(logits).max()
    assert (result.labels == labels.numpy()).mean() >= 0.999
    assert len(result.decisions) == len(expected.decisions[0])
    for made, said in zip(result.decisions, expected.decisions[0], strict=True):
        assert np.array_equal(made.index, said.index.numpy())
        assert np.array_equal(np.take_along_axis(made.index, made.keep.astype(np.int64), 1), said.kept.numpy())
        np.testing.assert_allclose(made.confidence, said.confidence.numpy(), rtol=1e-4)


def test_which_decisions_have_lenses(exported: tuple[DoViT, Session]) -> None:
    model, session = exported
    manifest = session.chain.manifest
    assert [manifest.has_lens(d) for d in manifest.decisions] == [h.lens is not None for h in model.config.decisions]
    kernels = [1 if h.lens is None else h.lens.kernel for h in model.config.decisions]
    assert [decision.lens_kernel for decision in manifest.decisions] == kernels
    # left out where it is 1: such bundles are the same as before there were kernels
    assert ("lens_kernel" in manifest.model_dump_json()) == any(kernel > 1 for kernel in kernels)


@pytest.mark.parametrize("head", ["conv", "conv-unmerged"])
def test_manifest_and_gathers_say_that_nothing_is_merged(head: str, tmp_path: Path) -> None:
    """Where neither says it, tokens are merged: such files are the same as before there was a choice."""
    manifest = make_bundle(randomised(small_config(head=head)), tmp_path)
    assert manifest.merge == (head == "conv")
    assert ("merge" in (tmp_path / "bundle.json").read_text()) == (not manifest.merge)
    for step in manifest.steps[1:-1]:
        graph = onnx.load(tmp_path / step.onnx, load_external_data=False).graph
        [gather] = [node for node in graph.node if node.op_type == "TokenGather"]
        assert [(a.name, a.i) for a in gather.attribute if a.name == "merge"] == (
            [] if manifest.merge else [("merge", 0)]
        )


def test_exact(exported: tuple[DoViT, Session]) -> None:
    model, session = exported
    images = random_images(model.config, seed=1)
    half = spreading_thresholds(model, images)
    for thresholds in (half, (1.0, 1.0), (half[0], 0.0), (0.0, 0.0), (1.0, half[1])):
        check(model, session.chain.run(images.numpy(), thresholds, range(25)), images, thresholds, None)


def test_bucketed_and_batches(exported: tuple[DoViT, Session]) -> None:
    model, session = exported
    capacities = (0, 5, 11, 17, 24)
    for batch in (1, 3):
        images = random_images(model.config, batch, seed=2)
        thresholds = spreading_thresholds(model, images, capacities=list(capacities))
        check(model, session.chain.run(images.numpy(), thresholds, capacities), images, thresholds, capacities)
        check(model, session.chain.run(images.numpy(), (1.0, 1.0), capacities), images, (1.0, 1.0), capacities)


def test_memory_is_reused_and_results_are_the_callers(exported: tuple[DoViT, Session]) -> None:
    model, session = exported
    images = [random_images(model.config, seed=seed).numpy() for seed in (3, 4)]
    first = session.chain.run(images[0], (0.5, 0.5), range(25))
    copy = first.logits.copy(), first.labels.copy(), [d.confidence.copy() for d in first.decisions]
    session.chain.run(images[1], (0.9, 0.1), range(25))
    assert np.array_equal(first.logits, copy[0]) and np.array_equal(first.labels, copy[1])
    assert all(np.array_equal(d.confidence, c) for d, c in zip(first.decisions, copy[2], strict=True))


@pytest.mark.parametrize(
    ("decoder", "head", "family"),
    [
        ("setr-mla", "setr-k3", None),
        ("setr-pup", "corrected", None),
        ("segmenter-linear-taps", "neighbours", None),
        ("segmenter-mask", "corrected-cells", None),
        ("segmenter-linear", "neighbours", None),
        ("setr-mla", "setr-k3-cells", "rotary"),
    ],
)
def test_dense_graph_has_no_token_pass_and_equals_the_model_without(
    decoder: str, head: str, family: str | None, tmp_path: Path
) -> None:
    model = randomised(small_config(decoder, head=head, family=family))
    make_bundle(model, tmp_path)
    bundle = open_bundle(tmp_path)
    graph = dense_graph(bundle)
    onnx.save(graph, tmp_path / "onnx" / "dense.onnx")
    onnx.checker.check_model(str(tmp_path / "onnx" / "dense.onnx"))
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    of_token_pass = "head", "lens", "neighbours", "correction", "refinement"
    assert not any(node.name.startswith(of_token_pass) for node in graph.graph.node)
    assert [i.name for i in graph.graph.input] == ["image"]
    if head.endswith("-cells"):  # no node is left of them
        plain = randomised(small_config(decoder, head=head.replace("-cells", "-unmerged"), family=family))
        make_bundle(plain, tmp_path / "plain")
        assert len(dense_graph(open_bundle(tmp_path / "plain")).graph.node) == len(graph.graph.node)
    engine = OnnxRuntimeEngine("dense", graph.SerializeToString(), weights=tmp_path / "onnx")
    image = random_images(model.config)
    made = engine.run({"image": image.numpy()}, {"logits": None, "labels": None})
    with torch.inference_mode():
        expected = dense_of(model)(image)
    np.testing.assert_allclose(made["logits"], expected.logits.numpy(), rtol=1e-4, atol=1e-5)


def test_a_dense_bundle_has_two_steps(tmp_path: Path) -> None:
    model = randomised(small_config("segmenter-mask", layers=()))
    manifest = make_bundle(model, tmp_path)
    assert [step.name for step in manifest.steps] == ["stem", "decoder"]
    images = random_images(model.config)
    check(model, load(tmp_path).chain.run(images.numpy(), (), range(25)), images, (), None)


def test_the_steps_are_valid_onnx_with_functions(tmp_path: Path) -> None:
    manifest = make_bundle(randomised(small_config("setr-pup", head="setr-k3")), tmp_path)
    for step in manifest.steps:
        onnx.checker.check_model(str(tmp_path / step.onnx))
        model = onnx.load(tmp_path / step.onnx, load_external_data=False)
        used = {node.op_type for node in model.graph.node if node.domain == "dovit"}
        assert used <= {function.name for function in model.functions}
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    block = onnx.load(tmp_path / manifest.steps[1].onnx, load_external_data=False)
    gather = next(node for node in block.graph.node if node.op_type == "TokenGather")
    assert list(gather.input) == ["tokens1", "index0", "full0", "stopped_sum0", "stopped_count0", "keep1"]
