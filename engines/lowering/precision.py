"""Writing a precision into a graph: a strongly typed TensorRT computes in the types that it reads, and in no others.

Products (MatMul, Gemm, Conv), the attention's softmax, the sum of its scores and a bias, and what lies between them are
computed in the low type. Norms and the softmax over classes are computed in float32, and so is what they feed until the next
product; confidences, sums of stopped tokens and logits leave the graph as float32. Tokens travel between the plans in the low
type.
"""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN
from dovit.runtime.bundle.plans import Precision

LOW_TYPES: dict[Precision, np.dtype] = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
ONNX_TYPES = {
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(np.float32): TensorProto.FLOAT,
}
FLOAT32 = np.dtype(np.float32)
OPSET_WITH_BF16 = 22  # the first in which Conv takes bfloat16

PRODUCTS = {"MatMul", "Gemm", "Conv"}
NORMS = {"LayerNormalization", "BatchNormalization", "ReduceL2"}
# inputs that ONNX wants as float32, whatever the node computes in
SIZES = {"Resize": (1, 2)}
# of the token pass's nodes, where plans hold them: inputs and outputs that are always float32
OPERATION_FLOAT32 = {"TokenDecide": ((0, 1), ()), "TokenGather": ((3,), (3,)), "TokenReconstruct": ((), ())}


def lower_precision(
    graph: gs.Graph, precision: Precision, float32: set[str], float32_nodes: Collection[str] = ()
) -> None:
    """Retype `graph` in place. Inputs and outputs named in `float32` keep that type, other float tensors get the low one, but for
    what the nodes named in `float32_nodes` compute.

    Weights keep their values; those with an `export_dtype` are converted when they are written.
    """
    if precision != "fp32":
        _Lowering(graph, LOW_TYPES[precision], float32, frozenset(float32_nodes)).run()


class _Lowering:
    def __init__(self, graph: gs.Graph, low: np.dtype, float32: set[str], float32_nodes: frozenset[str]) -> None:
        self.graph, self.low, self.float32, self.float32_nodes = graph.toposort(), low, float32, float32_nodes
        self.kind: dict[int, np.dtype] = {}  # the type of each float variable by now
        self.twins: dict[tuple[int, np.dtype], gs.Tensor] = {}  # a tensor in another type

    def run(self) -> None:
        graph = self.graph
        for tensor in graph.inputs:
            if _is_float(tensor):
                self._retype(tensor, FLOAT32 if tensor.name in self.float32 else self.low)
        for node in list(graph.nodes):
            self._lower(node)
        for position, tensor in enumerate(graph.outputs):
            if _is_float(tensor):
                wanted = FLOAT32 if tensor.name in self.float32 else self.low
                graph.outputs[position] = self._output(tensor, wanted)
        if self.low == LOW_TYPES["bf16"]:
            graph.opset = max(graph.opset, OPSET_WITH_BF16)
        graph.toposort()

    def _lower(self, node: gs.Node) -> None:
        if node.domain == OPERATOR_DOMAIN:
            inputs32, outputs32 = OPERATION_FLOAT32[node.op]
            node.inputs = [
                self._as(t, FLOAT32 if n in inputs32 else self.low) if _is_float(t) else t
                for n, t in enumerate(node.inputs)
            ]
            for n, t in enumerate(node.outputs):
                if _is_float(t):
                    self._retype(t, FLOAT32 if n in outputs32 else self.low)
            return
        if node.op == "Cast":
            if _is_float(node.outputs[0]):
                self._retype(node.outputs[0], FLOAT32)
            return
        wanted = self._computes_in(node)
        sizes = SIZES.get(node.op, ())
        node.inputs = [self._as(t, wanted) if _is_float(t) and n not in sizes else t for n, t in enumerate(node.inputs)]
        for tensor in node.outputs:
            if _is_float(tensor):
                self._retype(tensor, wanted)

    def _computes_in(self, node: gs.Node) -> np.dtype:
        if node.name in self.float32_nodes:
            return FLOAT32
        if node.op in PRODUCTS:
            return self.low
        if node.op in NORMS:
            return FLOAT32
        if node.op == "Softmax":
            return self.low if _is_attention(node) else FLOAT32
        if node.op == "Add" and _feeds_attention(node):
            return self.low  # the float32 bias of merged tokens: the sum would be rounded for the softmax anyway
        kinds = {self.kind[id(t)] for t in node.inputs if isinstance(t, gs.Variable) and _is_float(t)}
        if not kinds:  # made of constants alone
            return FLOAT32 if node.op == "ConstantOfShape" else self.low
        return FLOAT32 if FLOAT32 in kinds else self.low

    def _retype(self, tensor: gs.Variable, dtype: np.dtype) -> None:
        tensor.dtype = dtype
        self.kind[id(tensor)] = dtype

    def _as(self, tensor: gs.Tensor, dtype: np.dtype) -> gs.Tensor:
        """`tensor` in the type `dtype`: itself, or a twin of it."""
        if isinstance(tensor, gs.Constant):
            return tensor if dtype == FLOAT32 else self._low_constant(tensor)
        if self.kind[id(tensor)] == dtype:
            return tensor
        key = id(tensor), dtype
        if key not in self.twins:
            self.twins[key] = self._cast(tensor, gs.Variable(f"{tensor.name}/{dtype.name}", dtype, tensor.shape))
        return self.twins[key]

    def _low_constant(self, constant: gs.Constant) -> gs.Constant:
        key = id(constant), self.low
        if key not in self.twins:
            name = f"{constant.name}/{self.low.name}"
            self.twins[key] = gs.Constant(name, constant.values, export_dtype=self.low)
        twin = self.twins[key]
        assert isinstance(twin, gs.Constant)
        return twin

    def _output(self, tensor: gs.Variable, dtype: np.dtype) -> gs.Variable:
        """The graph's output of that name, in `dtype`; users within the graph go on reading what was made."""
        if self.kind[id(tensor)] == dtype:
            return tensor
        name = tensor.name
        tensor.name = f"{name}/{self.kind[id(tensor)].name}"
        twin = self.twins.get((id(tensor), dtype))
        if twin is None:
            return self._cast(tensor, gs.Variable(name, dtype, tensor.shape))
        twin.name = name
        return twin

    def _cast(self, source: gs.Variable, out: gs.Variable) -> gs.Variable:
        dtype = np.dtype(out.dtype)
        self.graph.nodes.append(gs.Node("Cast", f"{out.name}/cast", {"to": ONNX_TYPES[dtype]}, [source], [out]))
        self.kind[id(out)] = dtype
        return out


def _is_attention(softmax: gs.Node) -> bool:
    """The attention's softmax feeds a product, that over classes does not."""
    users = softmax.outputs[0].outputs
    return bool(users) and all(user.op in PRODUCTS for user in users)


def _feeds_attention(node: gs.Node) -> bool:
    """Whether attentions' softmaxes, and nothing else, read what `node` makes."""
    users = node.outputs[0].outputs
    return bool(users) and all(user.op == "Softmax" and _is_attention(user) for user in users)


def _is_float(tensor: gs.Tensor) -> bool:
    return (
        not tensor.is_empty() and tensor.dtype is not None and np.dtype(tensor.dtype) in (FLOAT32, *LOW_TYPES.values())
    )
