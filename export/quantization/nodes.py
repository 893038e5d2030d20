"""Quantized products in a graph: x → QuantizeLinear → DequantizeLinear → MatMul ← DequantizeLinear ← weights.

So backends find them: TensorRT, OpenVINO and ONNX Runtime fuse the nodes around a MatMul into one product of int8 or fp8.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from dovit.export.quantization.products import QuantizedProduct, norm_before
from dovit.export.quantization.ranges import products


def apply(graph: gs.Graph, quantized: Mapping[str, QuantizedProduct]) -> int:
    """Put the products that `quantized` has by name into `graph`, in place. Returns how many of them the graph has."""
    done = 0
    for node in products(graph):
        if node.name in quantized:
            _replace(graph, node, quantized[node.name])
            done += 1
    graph.cleanup().toposort()
    return done


def _replace(graph: gs.Graph, node: gs.Node, product: QuantizedProduct) -> None:
    name, source = node.name, node.inputs[0]
    if product.smoothing is not None:
        norm = norm_before(node)
        assert norm is not None
        for position in (1, 2):
            old = norm.inputs[position]
            divided = (np.asarray(old.values, np.float64) / product.smoothing).astype(np.float32)
            norm.inputs[position] = gs.Constant(f"{name}/{old.name}", divided)
    if product.shift:
        shifted = gs.Variable(f"{name}/shifted", np.float32)
        amount = gs.Constant(f"{name}/shift", np.array(-product.shift, np.float32))
        graph.nodes.append(gs.Node("Add", f"{name}/Shift", {}, [source, amount], [shifted]))
        source = shifted
    scale = gs.Constant(f"{name}/scale", np.array(product.input_scale, np.float32))
    dtype = product.weight.dtype
    narrow, restored = gs.Variable(f"{name}/quantized", dtype), gs.Variable(f"{name}/input", np.float32)
    zero = gs.Constant(f"{name}/zero_point", np.zeros((), dtype))
    graph.nodes.append(gs.Node("QuantizeLinear", f"{name}/QuantizeLinear", {}, [source, scale, zero], [narrow]))
    graph.nodes.append(gs.Node("DequantizeLinear", f"{name}/DequantizeLinear", {}, [narrow, scale, zero], [restored]))

    weight = gs.Variable(f"{name}/weight", np.float32)
    scales = gs.Constant(f"{name}/weight_scale", product.weight_scale)
    packed = gs.Constant(f"{name}/weight_quantized", product.weight)
    graph.nodes.append(gs.Node("DequantizeLinear", f"{name}/Weight", {"axis": 1}, [packed, scales], [weight]))
    node.inputs = [restored, weight]
    _add_to_bias(graph, node, product.correction)


def _add_to_bias(graph: gs.Graph, node: gs.Node, correction: np.ndarray) -> None:
    """To the bias that is added to the result of `node`; without one, an Add is made for it."""
    made = node.outputs[0]
    user = made.outputs[0] if len(made.outputs) == 1 else None
    if user is not None and user.op == "Add":
        for position, tensor in enumerate(user.inputs):
            if isinstance(tensor, gs.Constant) and tuple(tensor.shape) == correction.shape:
                corrected = np.asarray(tensor.values, np.float32) + correction
                user.inputs[position] = gs.Constant(f"{node.name}/{tensor.name}", corrected)
                return
    raw = gs.Variable(f"{node.name}/product", np.float32)
    node.outputs = [raw]
    bias = gs.Constant(f"{node.name}/correction", correction)
    graph.nodes.append(gs.Node("Add", f"{node.name}/Correct", {}, [raw, bias], [made]))
