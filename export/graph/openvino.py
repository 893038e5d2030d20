"""A step as OpenVINO reads it: ONNX without functions, in two files where the step decides and in three where it makes logits.

OpenVINO's ONNX reader knows no local functions, so they are inlined here. It lowers the precision of a whole compiled model,
which must not reach confidences and logits: so a step is cut before the last product that makes one. The body may run in
bf16, the tail (that product, softmax, the decision; or the upsampling of logits) always runs in float32. Labels are made of the
logits in a file of their own, as OpenVINO computes all that a model makes: an image of another size than the bundle's gets its
labels from the logits, so that the runtime leaves that file out.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs

from dovit.export.graph.functions import functions_of
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN

_PRODUCTS = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}
# The tail may begin with these: no arithmetic, or, for Resize, less of a tensor to pass on before it than behind it.
_LAYOUT = {
    "Flatten",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def precision_parts(graph: gs.Graph, results: set[str]) -> list[gs.Graph]:
    """`graph` as body and tail, or itself where it makes none of the tensors `results`.

    The tail has the last products before each of `results`, and all that depends on them.
    """
    nodes = list(graph.nodes)
    made_by = {id(tensor): n for n, node in enumerate(nodes) for tensor in node.outputs}
    parents = [[made_by[id(t)] for t in node.inputs if id(t) in made_by] for node in nodes]
    computed = [[made_by[id(t)] for t in node.inputs if id(t) in made_by and _is_float(t)] for node in nodes]
    tail: set[int] = set()
    todo = [n for n, node in enumerate(nodes) if any(t.name in results for t in node.outputs)]
    while todo:  # up to the products
        n = todo.pop()
        if n not in tail:
            tail.add(n)
            if nodes[n].op not in _PRODUCTS:
                todo += computed[n]
    if not tail:
        return [graph]
    for n in reversed(range(len(nodes))):  # and over what only arranges their inputs
        users = [m for m in range(len(nodes)) if n in parents[m]]
        if nodes[n].op in _LAYOUT and users and all(m in tail for m in users):
            tail.add(n)
    for n in range(len(nodes)):  # and down to the ends
        if any(parent in tail for parent in parents[n]):
            tail.add(n)
    body = [node for n, node in enumerate(nodes) if n not in tail]
    if not body:
        return [graph]
    return [_part(graph, body), _part(graph, [nodes[n] for n in sorted(tail)])]


def label_part(graph: gs.Graph) -> list[gs.Graph]:
    """`graph` in two where it makes labels from logits, all that it makes of these in the second; else itself."""
    behind: set[int] = set()  # tensors that are made of the logits
    first: list[gs.Node] = []
    second: list[gs.Node] = []
    for node in graph.nodes:
        later = any(t.name == "logits" or id(t) in behind for t in node.inputs)
        (second if later else first).append(node)
        behind |= {id(t) for t in node.outputs} if later else set()
    if not first or not second or not any(t.name == "labels" for node in second for t in node.outputs):
        return [graph]
    return [_part(graph, first), _part(graph, second)]


def _is_float(tensor: gs.Tensor) -> bool:
    return tensor.dtype is not None and np.dtype(tensor.dtype).kind == "f"


def _part(graph: gs.Graph, nodes: list[gs.Node]) -> gs.Graph:
    inside, made = {id(node) for node in nodes}, {id(t) for node in nodes for t in node.outputs}
    given = [t for t in graph.inputs if any(id(user) in inside for user in t.outputs)]
    known = made | {id(t) for t in given}
    for node in nodes:
        for t in node.inputs:
            if isinstance(t, gs.Variable) and not t.is_empty() and id(t) not in known:
                given.append(t)
                known.add(id(t))
    wanted = {id(t) for t in graph.outputs}
    outputs = [
        t
        for node in nodes
        for t in node.outputs
        if id(t) in wanted or any(id(user) not in inside for user in t.outputs)
    ]
    return gs.Graph(
        nodes, given, outputs, name=graph.name, opset=graph.opset, import_domains=graph.import_domains, ir_version=10
    )


def inlined(graph: gs.Graph) -> bytes:
    """`graph` as an ONNX model without functions. Weights that lie in a file are referred to there."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.producer_name = "dovit"
    model.functions.extend(functions_of(graph))
    flat = onnx.inliner.inline_local_functions(model)
    for opset in [o for o in flat.opset_import if o.domain == OPERATOR_DOMAIN]:
        flat.opset_import.remove(opset)
    return bytes(flat.SerializeToString())
