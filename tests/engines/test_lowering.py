"""Parts and precisions: they compute what the steps compute from which they were cut, in the types that they declare."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from bundles import make_bundle
from models import DECODERS, random_images, randomised, small_config
from plan_parity import feed

from dovit.engines.accuracy import _chain
from dovit.engines.lowering.emulate import emulate
from dovit.engines.lowering.files import read_step, write_part
from dovit.engines.lowering.labels import labels_nodes
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.lowering.parts import cut_parts
from dovit.engines.lowering.precision import LOW_TYPES, lower_precision
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.chain import Chain
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.loading import load

ARCHITECTURES = [(decoder, "conv") for decoder in DECODERS] + [("setr-naive", "fcn"), ("setr-mla", "setr-k3")]
ARCHITECTURES += [
    ("segmenter-linear", "lens-unmerged"),
    ("segmenter-linear", "corrected"),
    ("setr-naive", "neighbours"),
    ("setr-mla", "lens-cells"),
]
ARCHITECTURES += [("setr-mla", "setr-k3-cells"), ("segmenter-linear", "corrected-cells")]
LOW: tuple[Precision, ...] = ("fp16", "bf16")


@pytest.fixture(scope="module", params=ARCHITECTURES, ids="-".join)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    decoder, head = request.param
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(small_config(decoder, head=head, prefix=2 if decoder == "setr-pup" else 1)), folder)
    return folder


@pytest.fixture(scope="module")
def chains(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chain, Chain]:
    """Of the bundle's parts, and of its steps."""
    return _chain(open_bundle(bundle), "fp32", tmp_path_factory.mktemp("parts")), load(bundle).chain


@pytest.mark.parametrize("thresholds", [(1.0, 1.0), (0.5, 0.4), (0.5, 0.0), (0.0, 0.5)], ids=str)
def test_the_parts_compute_what_the_steps_compute(chains: tuple[Chain, Chain], thresholds: tuple[float, float]) -> None:
    """All kept, some, none after the second decision, none after the first."""
    image = random_images(small_config(), seed=3).numpy()
    made, expected = (chain.run(image, thresholds, range(25)) for chain in chains)
    assert np.array_equal(made.labels, expected.labels)
    np.testing.assert_allclose(made.logits, expected.logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(made.decisions, expected.decisions, strict=True):
        assert np.array_equal(one.keep, other.keep) and np.array_equal(one.index, other.index)


@pytest.mark.parametrize("precision", LOW)
def test_types(bundle: Path, precision: Precision, tmp_path: Path) -> None:
    """ONNX's own type inference accepts every part; what must be float32 is, and what must be low is."""
    opened = open_bundle(bundle)
    low, manifest = LOW_TYPES[precision], opened.manifest
    seen: set[str] = set()
    for step in lower_bundle(opened, precision):
        specs = {spec.name: spec.dtype for spec in (*step.described.inputs, *step.described.outputs)}
        for name, dtype in specs.items():
            if name.startswith(("tokens", "gathered", "full", "tap", "sequence", "map", "layers")):
                assert dtype == low.name, name
            if name.startswith(("confidence", "threshold", "stopped_sum", "logits")):
                assert dtype == "float32", name
        if step.described.kind != "plan":
            continue
        for node in step.graph.nodes:
            read = {np.dtype(t.dtype) for t in node.inputs if not t.is_empty() and np.dtype(t.dtype).kind in "fV"}
            read |= {np.dtype(t.export_dtype) for t in node.inputs if isinstance(t, gs.Constant)} & {low}
            if node.op in ("MatMul", "Conv", "Gemm"):
                assert low in read, node.name
            if node.op in ("LayerNormalization", "ReduceL2", "ReduceMax", "Log"):
                assert read == {np.dtype(np.float32)}, node.name
            if node.op == "Add" and any(user.op == "Softmax" for user in node.outputs[0].outputs):
                assert read == {low}, "scores and their bias have one type, or TensorRT might not see an attention"
            seen.add(node.op)
            assert node.op != "BatchNormalization", "every one follows a convolution and is folded into it"
        file = tmp_path / f"{step.described.name}.onnx"
        write_part(step.graph, file)
        onnx.checker.check_model(str(file), full_check=True)
    assert {"MatMul", "LayerNormalization", "Softmax", "Conv"} <= seen
    assert len(manifest.decisions) == 2


def test_fp16_files_run_as_they_are(bundle: Path, tmp_path: Path) -> None:
    """The files that a builder is given, under ONNX Runtime's own fp16 kernels, against their emulation."""
    opened = open_bundle(bundle)
    options = ort.SessionOptions()
    for step, emulated in zip(lower_bundle(opened, "fp16"), lower_bundle(opened, "fp16"), strict=True):
        if step.described.kind != "plan":
            continue
        inputs = feed(opened, step.described, 11)
        write_part(step.graph, tmp_path / "native.onnx")
        session = ort.InferenceSession(str(tmp_path / "native.onnx"), options, providers=["CPUExecutionProvider"])
        native = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
        emulate(emulated.graph)
        write_part(emulated.graph, tmp_path / "emulated.onnx")
        wide = {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in inputs.items()}
        made = OnnxRuntimeEngine("emulated", tmp_path / "emulated.onnx").run(wide, dict.fromkeys(native))
        for name, array in native.items():
            if array.dtype.kind == "f":
                scale = np.abs(array.astype(np.float32)).max() or 1
                assert np.abs(made[name] - array.astype(np.float32)).max() <= 4e-3 * scale, (step.described.name, name)


def _graph(op: str, inputs: list[gs.Variable | gs.Constant], shape: list[int]) -> gs.Graph:
    out = gs.Variable("out", np.float32, shape)
    node = gs.Node(op, op, {}, inputs, [out])
    return gs.Graph([node], [t for t in inputs if isinstance(t, gs.Variable)], [out], opset=20, ir_version=10)


@pytest.mark.parametrize("precision", LOW)
def test_the_emulation_rounds_as_the_type_does(precision: Precision, tmp_path: Path) -> None:
    """A product of low values, against torch's in the same type; and one value that the type cannot hold."""
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, (33, 70)).astype(np.float32), random.normal(0, 1, (70, 21)).astype(np.float32)
    graph = _graph("MatMul", [gs.Variable("a", np.float32, [33, 70]), gs.Constant("b", b)], [33, 21])
    lower_precision(graph, precision, set())
    emulate(graph)
    write_part(graph, tmp_path / "product.onnx")
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    low_a = torch.from_numpy(a).to(dtype)
    engine = OnnxRuntimeEngine("product", tmp_path / "product.onnx")
    made = engine.run({"a": low_a.float().numpy()}, {"out": None})["out"]
    expected = (low_a.double() @ torch.from_numpy(b).to(dtype).double()).to(dtype).float().numpy()
    np_type = np.float16 if precision == "fp16" else ml_dtypes.bfloat16
    assert np.array_equal(made, made.astype(np_type).astype(np.float32)), "not a value of the type"
    assert (made == expected).mean() > 0.98  # the rest: float32 sums round a tie the other way
    np.testing.assert_allclose(made, expected, rtol=2 * float(ml_dtypes.finfo(np_type).eps))

    huge = engine.run({"a": np.full((33, 70), 6e4, np.float32)}, {"out": None})["out"]
    assert np.isinf(huge).any() == (precision == "fp16")


def test_a_weight_that_the_type_cannot_hold_is_infinite(tmp_path: Path) -> None:
    graph = _graph("Add", [gs.Variable("a", np.float32, [2]), gs.Constant("b", np.array([1, 7e4], np.float32))], [2])
    lower_precision(graph, "fp16", set())
    write_part(graph, tmp_path / "add.onnx")
    constant = onnx.numpy_helper.to_array(onnx.load(tmp_path / "add.onnx").graph.initializer[0])
    assert constant.dtype == np.float16 and constant[0] == 1 and np.isinf(constant[1])


def test_labels_of_many_classes_are_wider(tmp_path: Path) -> None:
    """300 classes: int16 in the bundle, which TensorRT has not."""
    make_bundle(randomised(small_config(classes=300)), tmp_path)
    bundle = open_bundle(tmp_path)
    assert {s.name: s.dtype for s in bundle.manifest.steps[-1].outputs}["labels"] == "int16"
    labels = lower_bundle(bundle, "fp16")[-1].described
    assert (labels.kind, labels.outputs[0].dtype) == ("labels", "int16")
    decoder = lower_bundle(bundle, "fp16", plugins=True)[-1].described  # TensorRT has no int16
    assert {s.name: s.dtype for s in decoder.outputs}["labels"] == "int32"


def test_an_unknown_node_is_refused(tmp_path: Path) -> None:
    """A builder without that plugin would abort."""
    manifest = make_bundle(randomised(small_config()), tmp_path)
    graph = read_step(open_bundle(tmp_path).onnx(manifest.steps[0]))
    graph.nodes[5].domain = "acme"
    with pytest.raises(ValueError, match=r"acme\.\w+, which no flavour can build"):
        cut_parts(graph, "stem")


def test_with_plugins_a_step_is_one_plan(tmp_path: Path) -> None:
    make_bundle(randomised(small_config()), tmp_path)
    steps = lower_bundle(open_bundle(tmp_path), "fp16", plugins=True)
    assert [step.described.name for step in steps] == ["stem", "block2", "block3", "decoder"]
    types = {spec.name: spec.dtype for spec in steps[1].described.inputs}
    assert types["tokens1"] == "float16" and types["stopped_sum0"] == "float32" and types["keep1"] == "int32"


def test_plugin_nodes_have_known_shapes_and_say_where_their_plugin_is(tmp_path: Path) -> None:
    make_bundle(randomised(small_config()), tmp_path)
    stem, block2, *_ = lower_bundle(open_bundle(tmp_path), "fp16", plugins=True)
    shapes = {spec.name: spec.shape for spec in stem.described.outputs}
    assert shapes["keep1"] == shapes["confidence1"] and shapes["keep1_capacity"] == ()
    assert {spec.name: spec.shape for spec in block2.described.inputs}["keep1"] == (1, "kept1")
    for step in (stem, block2):
        own = [node for node in step.graph.nodes if node.domain == "dovit"]
        assert own and all((n.attrs["plugin_namespace"], n.attrs["plugin_version"]) == ("dovit", "1") for n in own)
        assert not step.graph.functions


@pytest.mark.parametrize("kind", DECODERS)
def test_labels_are_made_between_plans(kind: str, tmp_path: Path) -> None:
    """Upsampling and argmax, with the nodes that compute their size; the plan before them ends with the logits."""
    make_bundle(randomised(small_config(kind)), tmp_path)
    *_, decoder, labels = lower_bundle(open_bundle(tmp_path), "fp16")
    assert (decoder.described.kind, labels.described.kind) == ("plan", "labels")
    assert [spec.name for spec in decoder.described.outputs] == ["logits"]
    assert [(spec.name, spec.dtype) for spec in labels.described.inputs] == [("logits", "float32")]
    assert [(spec.name, spec.dtype) for spec in labels.described.outputs] == [("labels", "uint8")]
    assert {"Resize", "ArgMax", "Cast"} <= {node.op for node in labels.graph.nodes}
    assert "ArgMax" not in {node.op for node in decoder.graph.nodes}


@pytest.mark.parametrize(
    ("op", "attribute", "value"),
    [
        ("Resize", "mode", "nearest"),
        ("Resize", "mode", "cubic"),
        ("Resize", "coordinate_transformation_mode", "align_corners"),
        ("Resize", "antialias", 1),
        ("ArgMax", "axis", 2),
        ("ArgMax", "keepdims", 1),
        ("ArgMax", "select_last_index", 1),
    ],
)
def test_other_ends_of_a_decoder_stay_in_the_plan(op: str, attribute: str, value: object, tmp_path: Path) -> None:
    manifest = make_bundle(randomised(small_config()), tmp_path)
    graph = read_step(open_bundle(tmp_path).onnx(manifest.steps[-1]))
    assert len(labels_nodes(graph)) == 5
    [*_, last] = [node for node in graph.nodes if node.op == op]
    last.attrs[attribute] = value
    assert labels_nodes(graph) == []


def test_a_fraction_stays_in_the_plan(tmp_path: Path) -> None:
    manifest = make_bundle(randomised(small_config()), tmp_path)
    graph = read_step(open_bundle(tmp_path).onnx(manifest.steps[-1]))
    [labels] = [t for t in graph.outputs if t.name == "labels"]
    for shape in (["batch", 64, 90], ["batch", 60, 96], ["batch", 64, 192], ["batch", "height", 96]):
        labels.shape = shape
        assert labels_nodes(graph) == []
