"""tensorrt/declarations equals TensorRT-RTX's headers: its Python package, compiled with those, drives the stand-in, which was
compiled with ours."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import onnx
import pytest
from installed import require
from native import ROOT, run
from onnx import TensorProto, helper
from stand_in import StandIn

pytestmark = pytest.mark.xdist_group("cpp")


def test_tensorrt_rtx(stand_in_gpu: StandIn, library_path: Path, tmp_path: Path) -> None:
    """Every function that the C++ runtime calls, with arguments and results. Any other virtual function ends the process."""
    require("tensorrt_rtx")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n", 4]) for name in ("tokens", "doubled")]
    node = helper.make_node("Add", ["tokens", "tokens"], ["doubled"])
    graph = helper.make_graph([node], "plan", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "plan")
    script = Path(__file__).with_name("rtx_over_stand_in.py")
    libraries = (stand_in_gpu.tensorrt_rtx, stand_in_gpu.cuda)
    printed = run(
        *(sys.executable, script, *libraries, tmp_path / "plan"),
        PYTHONPATH=str(ROOT / "tests"),
        DOVIT_STAND_IN_ONNXRUNTIME=str(library_path),
    )
    found = json.loads(printed)
    head, shape = found.pop("cache").splitlines()
    assert head == "stand-in 1.7.1.116" and shape.endswith("tokensx1x6x4")
    assert found == {
        "header_size": 64,
        "valid": [0, 0],
        "invalid": [2, 2 | 4],
        "device_memory": 4096,
        "without_settings": True,
        "wrong_cache": False,
        "cache_taken": True,
        "capturable": True,
        "not_capturable": False,
        "profile": True,
        "shapes": [False, True],
        "addresses": [True, True, False],
        "enqueued": True,
        "doubled": [2.0 * n for n in range(24)],
        "compiled": 1,
        "same_cache": True,
        "messages": [
            "there is no profile 7",
            "the input tokens is never of this shape",
            "there is no tensor other",
        ],
    }


def test_enumerators_of_tensorrt_rtx() -> None:
    rtx = require("tensorrt_rtx")
    text = (ROOT / "runtime" / "cpp" / "tensorrt" / "declarations" / "NvInferRuntime.h").read_text()
    enums = {name: body for name, body in re.findall(r"enum class (\w+) : \w+ \{(.*?)\}", text, re.DOTALL)}
    kinds = {
        "ExecutionContextAllocationStrategy": rtx.ExecutionContextAllocationStrategy,
        "DynamicShapesKernelSpecializationStrategy": rtx.DynamicShapesKernelSpecializationStrategy,
        "EngineValidity": rtx.EngineValidity,
        "EngineInvalidityDiagnostics": rtx.EngineInvalidityDiagnostics,
        "Severity": rtx.ILogger.Severity,
    }
    for name, kind in kinds.items():
        ours = {member: int(value) for member, value in re.findall(r"k(\w+) = (\d+)", enums[name])}
        theirs = {member: int(value) for member, value in kind.__members__.items()}
        assert ours.items() <= theirs.items() and ours, name
