"""The ONNX functions on their own, against the torch definition, at awkward sizes and values."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from dovit.export.graph.functions import DOMAIN_VERSION, OPSET, Merging, token_pass_functions
from dovit.export.model.token_pass import Cells, TokenState, decide, gather, reconstruct
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN

STATE = ["tokens", "index", "full", "stopped_sum", "stopped_count"]
TYPES = {"index": TensorProto.INT32, "keep": TensorProto.INT32, "stopped_count": TensorProto.INT64}
TYPES |= {"capacities": TensorProto.INT64}


def session(
    op: str, inputs: list[str], outputs: list[str], *, merging: Merging = "class token", **attributes: int
) -> ort.InferenceSession:
    def infos(names: list[str]) -> list:
        return [
            helper.make_tensor_value_info(n, TYPES.get(n.removeprefix("new_"), TensorProto.FLOAT), None) for n in names
        ]

    functions = token_pass_functions(merging)
    node = helper.make_node(op, inputs, outputs, domain=OPERATOR_DOMAIN, **attributes)
    graph = helper.make_graph([node], op, infos(inputs), infos(outputs))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OPERATOR_DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def decider() -> ort.InferenceSession:
    return session("TokenDecide", ["confidence", "threshold", "capacities"], ["keep"])


def run_decide(decider: ort.InferenceSession, q: np.ndarray, threshold: float, capacities: list[int]) -> np.ndarray:
    feeds = {"confidence": q, "threshold": np.array(threshold, np.float32), "capacities": np.array(capacities)}
    return decider.run(None, feeds)[0]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 111, 989, 1024])
def test_decide(decider: ort.InferenceSession, count: int) -> None:
    random = np.random.default_rng(count)
    exact, bucketed = list(range(count + 1)), sorted({0, 1, count // 3, count // 2, count})
    for values in (random.random((1, count)), random.integers(0, 4, (1, count)) / 4, np.full((1, count), 0.5)):
        q = values.astype(np.float32)
        q[0, random.integers(0, count)] = np.nan
        for threshold in (0.0, 0.25, 0.5, 0.9, 1.0):
            for capacities in (exact, bucketed):
                expected = decide(torch.from_numpy(q), threshold, capacities)
                made = run_decide(decider, q, threshold, capacities)
                assert np.array_equal(made, expected.numpy()), (threshold, capacities[:6])


def test_decide_special_values(decider: ort.InferenceSession) -> None:
    q = np.array([[np.nan, 0.5, -0.0, 0.0, np.float32(0.985), 1.0]], np.float32)
    everything = [0, 1, 2, 3, 4, 5, 6]
    assert run_decide(decider, q, 0.985, everything).tolist() == [[0, 1, 2, 3, 4]], "equal to ξ keeps"
    assert run_decide(decider, q, 1.0, everything).tolist() == [[0, 1, 2, 3, 4, 5]]
    ties = np.full((1, 6), 0.75, np.float32)
    assert run_decide(decider, ties, 0.5, [0, 6]).shape == (1, 0), "nothing kept"
    ties[0, 5] = 0.25
    assert run_decide(decider, ties, 0.5, [0, 3, 6]).tolist() == [[0, 1, 5]], "ties fill by lower index"


@pytest.mark.parametrize("merging", ["class token", "cells", "none"])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("count", "kept"), [(1, 1), (1, 0), (7, 0), (7, 1), (111, 7), (111, 111)])
def test_gather_and_reconstruct(prefix: int, count: int, kept: int, merging: Merging) -> None:
    random = np.random.default_rng(count + kept)
    # 4 or 29 patches a row, in cells of 3×3
    columns = 4 if count < 10 else 29
    total, channels, batch = columns * (count // columns + 2), 12, 2
    cells = Cells((total // columns, columns), 3) if merging == "cells" else None
    prefix += cells.count if cells else 0
    index = np.stack([np.sort(random.permutation(total)[:count]) for _ in range(batch)]).astype(np.int32)
    keep = np.stack([np.sort(random.permutation(count)[:kept]) for _ in range(batch)]).astype(np.int32)
    tokens, full, stopped = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((batch, prefix + count, channels), (batch, total, channels), (batch, channels))
    )
    tokens[0, prefix + keep[0, 0] if kept else 0] = np.inf if kept else 0  # what stays must not reach the mean
    if cells is not None:  # nor what the merged token of a cell holds of which nothing has stopped
        index[0] = np.arange(count)
        whole = prefix - cells.count + np.flatnonzero(cells.stopped(torch.from_numpy(index))[0].numpy() == 0)
        assert len(whole) or count < 10
        tokens[0, whole] = np.nan
    for before in (0, 5):
        state = TokenState(*map(torch.from_numpy, (tokens, index, full, stopped)), before)
        after = gather(state, torch.from_numpy(keep).long(), prefix, merge=merging == "class token", cells=cells)
        attributes = {"prefix": prefix} | ({} if merging == "class token" else {"merge": 0})
        if cells is not None:
            attributes |= {"cell_side": cells.side, "columns": columns}
        runner = session(
            "TokenGather", [*STATE, "keep"], [f"new_{name}" for name in STATE], merging=merging, **attributes
        )
        feeds = dict(zip(STATE, (tokens, index, full, stopped, np.array([before])), strict=True)) | {"keep": keep}
        made = dict(zip(STATE, runner.run(None, feeds), strict=True))
        for name in ("index", "full"):
            assert np.array_equal(made[name], getattr(after, name).numpy()), name
        np.testing.assert_allclose(made["tokens"], after.tokens.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made["stopped_sum"], after.stopped_sum.numpy(), rtol=1e-5, atol=1e-5)
        if cells is not None:
            assert np.isfinite(made["tokens"][:, :prefix][:, prefix - cells.count :]).all()
        if merging == "none":
            assert np.array_equal(made["tokens"][:, :prefix], tokens[:, :prefix])
        assert made["stopped_count"].tolist() == [after.stopped_count]
    rebuilt = session("TokenReconstruct", ["full", "tokens", "index"], ["new_full"], prefix=prefix)
    made_full = rebuilt.run(None, {"full": full, "tokens": tokens, "index": index})[0]
    assert np.array_equal(made_full, reconstruct(state, prefix).numpy())
