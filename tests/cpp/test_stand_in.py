"""The stand-ins for the CUDA driver, TensorRT and the plugins keep to the rules: stand_in/check.cpp, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from native import run
from onnx import TensorProto, helper
from plan_bundles import describe
from stand_in import StandIn, build_check, build_stand_in

pytestmark = pytest.mark.xdist_group("cpp")

CASES = ("waiting", "versions", "copies", "switch", "captures", "failing", "kernel", "plans", "threads")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def tensor(name: str, rows: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 3])

    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"])], "sum", [tensor("a", "n"), tensor("b", 1)], [tensor("sum", "n")]
    )
    file = tmp_path_factory.mktemp("plan") / "sum.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    b = ((1, 3), (1, 3))
    model.doc_string = describe([{"a": ((1, 3), (1, 3)), "b": b}, {"a": ((2, 3), (9, 3)), "b": b}])
    onnx.save(model, file)
    return file


@pytest.fixture(scope="module")
def check(stand_in_gpu: StandIn) -> Path:
    return build_check(stand_in_gpu)


@pytest.mark.parametrize("case", CASES)
def test_it_keeps_to_the_rules(check: Path, plan: Path, library_path: Path, case: str) -> None:
    run(check, case, plan, DOVIT_STAND_IN_ONNXRUNTIME=str(library_path))


@pytest.mark.slow
@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_sanitizers_find_nothing_in_it(tmp_path: Path, plan: Path, library_path: Path, sanitize: str) -> None:
    check = build_check(build_stand_in(tmp_path, sanitize), sanitize)
    suppressions = Path(__file__).with_name("thread_sanitizer.txt")
    for case in CASES:
        run(
            check, case, plan, DOVIT_STAND_IN_ONNXRUNTIME=str(library_path), TSAN_OPTIONS=f"suppressions={suppressions}"
        )
