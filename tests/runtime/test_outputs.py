"""A model that says other sizes, types or values than its manifest: one sentence, before anything is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models import random_images, small_config

from dovit.runtime import DovitError, Session
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.chain import Chain
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.outputs import check_labels

Tensors = dict[str, np.ndarray]
IMAGE = random_images(small_config())[0].numpy()


class ChangedOutputs:
    """An engine whose outputs are changed."""

    def __init__(self, engine: OnnxRuntimeEngine, change: Callable[[Tensors], object]) -> None:
        self.engine, self.change = engine, change

    def run(self, inputs: Tensors, outputs: dict[str, np.ndarray | None]) -> Tensors:
        made = self.engine.run(inputs, outputs)
        self.change(made)
        return made


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], None]:
    def apply(made: Tensors) -> None:
        made[name] = change(made[name])

    return apply


def value(name: str, at: tuple[int, ...], number: int) -> Callable[[Tensors], None]:
    def change(made: Tensors) -> None:
        made[name] = made[name].copy()
        made[name][at] = number

    return change


CHANGES: dict[str, tuple[int, Callable[[Tensors], object], str]] = {
    "more tokens than there are": (
        0,
        put("keep1", lambda x: np.tile(x, 2)),
        r"int32 \[1, 48\], expected int32 \[1, at most 24\]",
    ),
    "rank": (0, put("keep1", lambda x: x[0]), r"keep1 as int32 \[24\]"),
    "type": (0, put("keep1", lambda x: x.astype(np.int64)), "keep1 as int64"),
    "batch": (0, put("keep1", lambda x: np.repeat(x, 2, axis=0)), r"keep1 as int32 \[2, 24\]"),
    "missing keep": (0, lambda made: made.pop("keep1") is None, "did not make keep1"),
    "missing": (0, lambda made: made.pop("confidence1") is None, "did not make confidence1"),
    "beyond": (0, value("keep1", (0, 23), 24), "keep1 has the index 24, expected 0 to 23"),
    "negative": (0, value("keep1", (0, 0), -1), "keep1 has the index -1, expected 0 to 23"),
    "twice": (0, value("keep1", (0, 3), 2), "keep1 has the index 2 after 2, expected ascending"),
    "falling": (0, value("keep1", (0, 3), 1), "keep1 has the index 1 after 2, expected ascending"),
    "index beyond": (1, value("index1", (0, 5), 99), "index1 has the index 99, expected 0 to 23"),
    "index twice": (1, value("index1", (0, 5), 4), "index1 has the index 4 after 4"),
    "shape": (1, put("tokens2", lambda x: x[:, :-1]), r"step block2 made tokens2 as float32 .* expected float32"),
    "half": (1, put("tokens2", lambda x: x.astype(np.float16)), "tokens2 as float16"),
    "label": (3, value("labels", (0, 0, 0), 7), "labels has the label 7, expected 0 to 6"),
    "logits": (3, put("logits", lambda x: x[0]), "logits as float32"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_output_is_checked_before_it_is_used(session: Session, name: str) -> None:
    number, change, sentence = CHANGES[name]
    chain = session.chain
    assert isinstance(chain, Chain)
    engines = list(chain.engines)
    if number == 3:
        number = len(engines) - 1
    engines[number] = ChangedOutputs(engines[number], change)  # type: ignore[arg-type]
    changed = Session(session.manifest, Chain(session.manifest, engines), "onnxruntime")
    with pytest.raises(DovitError, match=sentence) as caught:
        changed(IMAGE, threshold=1)
    assert "\n" not in str(caught.value) and caught.value.exit_status == 1


def test_labels_of_few_and_many_classes() -> None:
    for dtype, classes, wrong in [(np.uint8, 19, 19), (np.int16, 300, 300), (np.int16, 300, -1), (np.uint8, 255, 255)]:
        labels = np.full((1, 4, 4), classes - 1, dtype)
        check_labels(labels, classes)
        labels[0, 1, 2] = wrong
        with pytest.raises(DovitError, match=f"the label {wrong}, expected 0 to {classes - 1}"):
            check_labels(labels, classes)
    check_labels(np.full((1, 2, 2), 255, np.uint8), 256)


def test_a_file_whose_tensors_are_others_than_the_manifests_is_refused_on_loading(session: Session) -> None:
    chain = session.chain
    assert isinstance(chain, Chain)
    engine, step = chain.engines[0], session.manifest.steps[0]
    assert isinstance(engine, OnnxRuntimeEngine)

    def spec(name: str, dtype: str) -> TensorSpec:
        return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": ()})

    engine.check(step.inputs, step.outputs)
    with pytest.raises(DovitError, match="step stem: its ONNX file has no output keep9"):
        engine.check(step.inputs, [spec("keep9", "int32")])
    with pytest.raises(DovitError, match=r"output keep1 is a tensor\(int32\).*the manifest says tensor\(bfloat16\)"):
        engine.check(step.inputs, [spec("keep1", "bfloat16")])
    with pytest.raises(DovitError, match=r"input image is a tensor\(uint8\)"):
        engine.check([spec("image", "float32")], ())
    with pytest.raises(DovitError, match=r"its ONNX file needs .* too"):
        engine.check(step.inputs[1:], ())


def test_an_output_that_is_larger_than_its_place(tmp_path: Path) -> None:
    """ONNX Runtime is handed the memory of the size that the manifest says, and must not write beyond it."""
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("Tile", ["x", "repeats"], ["y"])],
        "tile",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, None])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, None])],
        [helper.make_tensor("repeats", onnx.TensorProto.INT64, [2], [1, 1000])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = OnnxRuntimeEngine("tile", model.SerializeToString())
    with pytest.raises(DovitError, match="ONNX Runtime failed in step tile"):
        engine.run({"x": np.ones((1, 8), np.float32)}, {"y": np.zeros((1, 8), np.float32)})
    with pytest.raises(DovitError, match="ONNX Runtime failed in step tile"):
        engine.run({"x": np.ones((1, 8), np.float64)}, {"y": np.zeros((1, 8000), np.float32)})
    with pytest.raises(DovitError, match="ONNX Runtime failed in step tile"):
        engine.run({"x": np.ones((1, 8), np.float32)}, {"z": None})
