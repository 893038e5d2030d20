"""A lowered graph as float32 arithmetic with the low type's rounding, for processors that cannot compute in that type.

After every node that makes low values, they are rounded to the low type and back. So a product of low values is summed in
float32 and then rounded, as a tensor core does it; and a value that the low type cannot hold becomes infinite, as it would.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from dovit.engines.lowering.precision import FLOAT32, LOW_TYPES, ONNX_TYPES

# operators that only move values, so there is nothing to round
MOVES = {
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "ScatterND",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "TokenReconstruct",
}


def emulate(graph: gs.Graph) -> None:
    """Turn `graph` in place into one without low types that computes the same numbers."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and np.dtype(tensor.export_dtype) in LOW_TYPES.values():
            with np.errstate(over="ignore"):
                tensor.values = np.asarray(tensor.values, tensor.export_dtype).astype(np.float32)
            tensor._export_dtype = None
    nodes = list(graph.nodes)
    for tensor in graph.inputs:
        if tensor.dtype is not None and np.dtype(tensor.dtype) in LOW_TYPES.values():
            _round_input(graph, tensor, nodes)
    for node in nodes:
        if node.op == "Cast" and node.attrs["to"] in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            node.attrs["to"] = TensorProto.FLOAT  # the rounding below does what it did
        for position, tensor in enumerate(node.outputs):
            if tensor.dtype is not None and np.dtype(tensor.dtype) in LOW_TYPES.values() and node.op not in MOVES:
                raw = gs.Variable(f"{tensor.name}/exact", FLOAT32)
                node.outputs[position] = raw
                _round(graph, raw, tensor)
    for tensor in graph.tensors().values():
        if (
            isinstance(tensor, gs.Variable)
            and tensor.dtype is not None
            and np.dtype(tensor.dtype) in LOW_TYPES.values()
        ):
            tensor.dtype = FLOAT32
    graph.toposort()


def _round_input(graph: gs.Graph, tensor: gs.Variable, nodes: list[gs.Node]) -> None:
    """Inputs are rounded here, in case they were made in float32."""
    rounded = gs.Variable(f"{tensor.name}/rounded", tensor.dtype)
    for node in nodes:
        node.inputs = [rounded if t is tensor else t for t in node.inputs]
    _round(graph, tensor, rounded)


def _round(graph: gs.Graph, raw: gs.Variable, tensor: gs.Variable) -> None:
    """`tensor` is `raw`, rounded to the type that it had."""
    low = np.dtype(tensor.dtype)
    narrow = gs.Variable(f"{tensor.name}/narrow")
    graph.nodes.append(gs.Node("Cast", f"{tensor.name}/round", {"to": ONNX_TYPES[low]}, [raw], [narrow]))
    graph.nodes.append(gs.Node("Cast", f"{tensor.name}/back", {"to": TensorProto.FLOAT}, [narrow], [tensor]))
