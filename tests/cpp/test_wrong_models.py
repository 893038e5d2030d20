"""Models whose outputs contradict their manifest, with correct hashes: each is an error, and no access is out of bounds."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from c_binding import Failure
from c_binding import Session as CSession
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.xdist_group("cpp")  # one worker builds the library, once

Node = tuple[str, dict[str, object], np.ndarray | None]  # operator, attributes, second input

# (step, output, what is done to it, what the sentence says)
LIES: list[tuple[int, str, Node, str]] = [
    (
        0,
        "keep1",
        ("Tile", {}, np.array([1, 2], np.int64)),
        r"made keep1 as int32 \[1, 576\], expected int32 \[1, at most 288\]",
    ),
    (0, "keep1", ("Tile", {}, np.array([1, 200], np.int64)), r"made keep1 as int32 \[1, 57600\], expected int32"),
    (
        0,
        "keep1",
        ("Unsqueeze", {}, np.array([0], np.int64)),
        r"made keep1 as int32 \[1, 1, \d+\], expected int32 \[1, at most",
    ),
    (0, "keep1", ("Cast", {"to": TensorProto.INT64}, None), "another type than the manifest says"),
    (0, "keep1", ("Add", {}, np.array(7, np.int32)), r"keep1 has the index \d+, expected 0 to 287"),
    (0, "keep1", ("Mul", {}, np.array(0, np.int32)), "keep1 has the index 0 after 0, expected ascending indices"),
    (0, "keep1", ("Sub", {}, np.array(1, np.int32)), "keep1 has the index -1, expected 0 to 287"),
    (0, "index0", ("Add", {}, np.array(1, np.int32)), "index0 has the index 288, expected 0 to 287"),
    (0, "index0", ("Tile", {}, np.array([1, 2], np.int64)), "ONNX Runtime failed in step stem"),
    (0, "confidence1", ("Tile", {}, np.array([1, 2], np.int64)), "ONNX Runtime failed in step stem"),
    (0, "confidence1", ("Cast", {"to": TensorProto.DOUBLE}, None), "ONNX Runtime failed in step stem"),
    (-1, "labels", ("Add", {}, np.array(200, np.uint8)), r"labels has the label 2\d\d, expected 0 to"),
    (-1, "logits", ("Tile", {}, np.array([1, 2, 1, 1], np.int64)), "ONNX Runtime failed in step decoder"),
]


def changed_bundle(bundle: Path, out: Path, step: int, output: str, node: Node) -> Path:
    """`bundle` with one output of a step changed by one operator."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "bundle.json").read_text()) | {"thresholds": [1.0, 1.0, 1.0]}
    name = manifest["steps"][step]["onnx"]
    model = onnx.load(out / name, load_external_data=False)
    for made in model.graph.node:
        made.output[:] = ["truth" if each == output else each for each in made.output]
        made.input[:] = ["truth" if each == output else each for each in made.input]
    operator, attributes, second = node
    inputs = ["truth"]
    if second is not None:
        model.graph.initializer.append(numpy_helper.from_array(second, "second"))
        inputs.append("second")
    model.graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
    (described,) = (each for each in model.graph.output if each.name == output)
    if "to" in attributes:
        described.type.tensor_type.elem_type = attributes["to"]
    described.type.tensor_type.ClearField("shape")
    data = model.SerializeToString()
    (out / name).write_bytes(data)
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (out / "bundle.json").write_text(json.dumps(manifest))
    return out


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (192, 384, 3), np.uint8)


@pytest.mark.parametrize(("step", "output", "node", "sentence"), LIES)
def test_wrong_model_outputs_are_refused(
    build: Callable[[str], Path],
    bundle: Path,
    library_path: Path,
    tmp_path: Path,
    step: int,
    output: str,
    node: Node,
    sentence: str,
) -> None:
    folder = changed_bundle(bundle, tmp_path / "changed", step, output, node)
    session = CSession(build("release") / "libdovit_runtime.so", folder, library_path)
    with pytest.raises(Failure, match=sentence) as failure:
        session(picture())
    assert "\n" not in str(failure.value)


def test_the_unchanged_model_still_runs(
    build: Callable[[str], Path], bundle: Path, library_path: Path, tmp_path: Path
) -> None:
    folder = changed_bundle(bundle, tmp_path / "same", 0, "keep1", ("Identity", {}, None))
    result = CSession(build("release") / "libdovit_runtime.so", folder, library_path)(picture())
    assert result.kept == (result.tokens,) * 3


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 10, 200])
def test_more_kept_tokens_than_there_are_under_address_sanitizer(
    build: Callable[[str], Path], bundle: Path, library_path: Path, tmp_path: Path, times: int
) -> None:
    """Twice and ten times as many were once read beyond the buffers, two hundred times as many written."""
    folder = changed_bundle(bundle, tmp_path / "changed", 0, "keep1", ("Tile", {}, np.array([1, times], np.int64)))
    done = subprocess.run(
        [build("sanitize") / "tests" / "repeat", folder, library_path, "8"], capture_output=True, text=True
    )
    assert "AddressSanitizer" not in done.stderr and " keep1 " in done.stderr
