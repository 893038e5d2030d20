"""The files for OpenVINO compute what the step's ONNX file computes, without the operators that are slow in OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from bundles import make_bundle
from installed import require
from models import randomised, small_config

from dovit.export.graph.assemble import assemble
from dovit.export.model.heads import DecisionHead
from dovit.runtime.bundle.manifest import Step
from dovit.runtime.bundle.open import Bundle, open_bundle

DECODERS = ("setr-naive", "segmenter-mask")


@pytest.fixture(scope="module", params=DECODERS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("files")
    make_bundle(randomised(small_config(request.param)), folder)
    return open_bundle(folder)


def run(file: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of an ONNX file by ONNX Runtime, from what it takes of `given`."""
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {i.name: given[i.name] for i in session.get_inputs()}), strict=True))


def test_each_step_makes_the_same_by_onnx_runtime(bundle: Bundle) -> None:
    """Step by step with two images: the files for OpenVINO beside the step's own, on the tensors that the latter make."""
    manifest = bundle.manifest
    images = np.random.default_rng(0).integers(0, 256, (2, *manifest.image_size, 3), dtype=np.uint8)
    tensors = {"image": images, "stopped_count0": np.zeros(1, np.int64), "capacities": np.arange(manifest.tokens + 1)}
    tensors |= {d.threshold: np.array(0.45, np.float32) for d in manifest.decisions}
    for step in manifest.steps:
        expected = run(bundle.onnx(step), tensors)
        made: dict[str, np.ndarray] = {}
        for name in step.openvino:
            made |= run(bundle.path(name), tensors | made)
        for spec in step.outputs:
            if expected[spec.name].dtype.kind == "f":
                scale = np.abs(expected[spec.name]).max()
                np.testing.assert_allclose(made[spec.name], expected[spec.name], atol=1e-5 * scale, rtol=0)
            elif spec.name == "labels":
                assert (made[spec.name] == expected[spec.name]).mean() > 0.999
            else:
                np.testing.assert_array_equal(made[spec.name], expected[spec.name])
        tensors |= expected


def test_a_tail_gets_the_smaller_tensor_and_transposes_few_channels(bundle: Bundle) -> None:
    """Before its upsampling, not behind it; labels have a file of their own; and a head of kernel 1 is a product over tokens."""
    *deciding, decoder = bundle.manifest.steps
    sizes = {tensor.name: tensor for tensor in graph(bundle, decoder, 0).output}
    tail, labels = graph(bundle, decoder, 1), graph(bundle, decoder, 2)
    taken = [tensor for tensor in tail.input if tensor.name in sizes]
    assert taken and [tensor.name for tensor in tail.output] == ["logits"]
    assert {t.name for t in taken}.isdisjoint(
        name for node in graph(bundle, decoder, 0).node if node.op_type == "Resize" for name in node.output
    )
    assert [[t.name for t in ends] for ends in (labels.input, labels.output)] == [["logits"], ["labels"]]
    [argmax] = [node for node in labels.node if node.op_type == "ArgMax"]
    [last] = [node for node in labels.node if node.op_type == "Resize"]
    assert last.output[0] == before(labels, argmax.input[0]).input[0]
    assert next(a for a in last.attribute if a.name == "axes").ints == [1, 2]  # of [B·C, h, w]
    for step in deciding[:-1]:
        operations = [node.op_type for node in graph(bundle, step, -1).node]
        assert "Conv" not in operations and "MatMul" in operations


def test_a_linear_head_with_a_norm_transposes_few_channels_too() -> None:
    """In the graph for all backends; equal to the head on a map, as mmsegmentation computes it."""
    model = randomised(small_config("segmenter-linear", head="lens"))
    made = assemble(model)
    transposed = [node.inputs[0] for node in made.nodes if node.name.startswith("head1") and node.op == "Transpose"]
    assert [tensor.shape[2] for tensor in transposed] == [7]  # [B, M, C]
    head = cast(DecisionHead, model.heads[0])
    tokens = torch.randn(2, 5, 64)
    on_map = head(tokens.transpose(1, 2)[..., None])[..., 0]  # [B, C, M]
    torch.testing.assert_close(head.of_tokens(tokens).transpose(1, 2), on_map)
    assert not cast(DecisionHead, randomised(small_config(head="setr-k1")).heads[0]).is_linear


def graph(bundle: Bundle, step: Step, part: int) -> onnx.GraphProto:
    return onnx.load(bundle.path(step.openvino[part]), load_external_data=False).graph


def before(made: onnx.GraphProto, tensor: str) -> onnx.NodeProto:
    return next(node for node in made.node if tensor in node.output)


def test_openvino_does_not_choose_its_slow_argmax(bundle: Bundle) -> None:
    """By the memory layout that it says it executes: channels innermost (`acdb`) takes ten times as long."""
    require("openvino")
    from dovit.runtime.openvino.device import core, options_for

    file = bundle.path(bundle.manifest.steps[-1].openvino[-1])
    compiled = core().compile_model(str(file), "CPU", options_for(1, "fp32"))
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    layouts = {
        about["outputLayouts"].astype(str) for about in found if about["layerType"].astype(str) in ("TopK", "ArgMax")
    }
    assert layouts and not any("acdb" in layout for layout in layouts)
