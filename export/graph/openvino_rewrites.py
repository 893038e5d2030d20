"""Rewrites of a step for OpenVINO: equal results, in a memory layout that its CPU device runs faster.

Behind a convolution OpenVINO keeps channels innermost (NHWC). ArgMax over 19 channels is slow there, 10 ms for 512×512 labels,
and so is the transpose of all tokens in front of a decision head's 1×1 convolution. No gain: attention with its transposes
inside OpenVINO's kernel, which takes as long as with them outside.

And one that OpenVINO needs for right results: `_reduction_by_itself`.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

_ELEMENTWISE = {
    *("Abs", "Add", "Cast", "Clip", "Div", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow", "PRelu", "Relu", "Sigmoid"),
    *("Sqrt", "Sub", "Tanh", "Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
}


def rewrite(graph: gs.Graph) -> gs.Graph:
    """A copy of `graph` with the rewrites below. Names of inputs and outputs, their shapes and dtypes stay."""
    made = graph.copy()
    for node in list(made.nodes):
        if node.op == "ArgMax":
            _planar_labels(made, node)
        elif node.op == "Conv":
            _product_over_tokens(made, node)
        elif node.op.startswith("Reduce"):
            _reduction_by_itself(made, node)
    return made.cleanup().toposort()


def _planar_labels(graph: gs.Graph, argmax: gs.Node) -> None:
    """Resize and ArgMax over channels, [B, C, h, w] → [B, H, W], as a resize of B·C separate maps: OpenVINO keeps tensors of
    three dimensions in their order, and its ArgMax then runs over neighbouring pixels at once."""
    resize = _maker(argmax.inputs[0])
    labels = next((t for t in graph.outputs if t.name == "labels"), None)
    if resize is None or resize.op != "Resize" or labels is None or argmax.attrs.get("axis") != 1:
        return
    if len(argmax.inputs[0].outputs) != 1 or argmax.attrs.get("keepdims", 1):
        return
    logits, result = resize.inputs[0], argmax.outputs[0]
    small, large = list(logits.shape or ())[1:], list(labels.shape or ())[1:]
    if len(small) != 3 or len(large) != 2 or not all(isinstance(d, int) for d in (*small, *large)):
        return
    channels, name = small[0], argmax.name
    maps = _shaped(graph, logits, [-1, *small[1:]], f"{name}.maps")  # [B·C, h, w]
    resized = gs.Variable(f"{name}.resized", np.float32)
    attrs = {key: value for key, value in resize.attrs.items() if key != "axes"} | {"axes": [1, 2]}
    empty = gs.Variable.empty()
    sizes = gs.Constant(f"{name}.sizes", np.array(large, np.int64))
    graph.nodes.append(gs.Node("Resize", f"{name}.Resize", attrs, [maps, empty, empty, sizes], [resized]))
    values = _shaped(graph, resized, [-1, channels, large[0] * large[1]], f"{name}.values")  # [B, C, H·W]
    flat = gs.Variable(f"{name}.flat", np.int64)
    argmax.inputs, argmax.outputs = [values], [flat]
    _shaped(graph, flat, [-1, *large], f"{name}.labels", result)


def _product_over_tokens(graph: gs.Graph, conv: gs.Node) -> None:
    """A 1×1 convolution over tokens, transposed to [B, E, M, 1], as a product [B, M, E] × [E, C]: only its few channels are
    transposed."""
    unsqueeze = _maker(conv.inputs[0])
    transpose = _maker(unsqueeze.inputs[0]) if unsqueeze is not None and unsqueeze.op == "Unsqueeze" else None
    weight = conv.inputs[1]
    if unsqueeze is None or transpose is None:
        return
    if transpose.op != "Transpose" or transpose.attrs.get("perm") != [0, 2, 1]:
        return
    plain = conv.attrs.get("group", 1) == 1 and not any(conv.attrs.get("pads", ()))
    plain = plain and all(step == 1 for step in conv.attrs.get("strides", ()))
    if not isinstance(weight, gs.Constant) or tuple(weight.shape[2:]) != (1, 1) or not plain:
        return
    if len(transpose.outputs[0].outputs) != 1 or len(unsqueeze.outputs[0].outputs) != 1:
        return
    tokens, name, result = transpose.inputs[0], conv.name, conv.outputs[0]
    matrix = _shaped(graph, weight, list(weight.shape[:2]), f"{name}.matrix")  # [C, E]
    turned, product, out = (gs.Variable(f"{name}.{part}", np.float32) for part in ("turned", "product", "transposed"))
    graph.nodes.append(gs.Node("Transpose", f"{name}.turned", {"perm": [1, 0]}, [matrix], [turned]))
    graph.nodes.append(gs.Node("MatMul", name, {}, [tokens, turned], [product]))  # [B, M, C]
    if len(conv.inputs) > 2:
        biased = gs.Variable(f"{name}.biased", np.float32)
        graph.nodes.append(gs.Node("Add", f"{name}.bias", {}, [product, conv.inputs[2]], [biased]))
        product = biased
    graph.nodes.append(gs.Node("Transpose", f"{name}.transposed", {"perm": [0, 2, 1]}, [product], [out]))
    last = gs.Constant(f"{name}.last", np.array([-1], np.int64))
    conv.outputs = []
    graph.nodes.append(gs.Node("Unsqueeze", f"{name}.unsqueezed", {}, [out, last], [result]))  # [B, C, M, 1]


def _reduction_by_itself(graph: gs.Graph, reduction: gs.Node) -> None:
    """A reduction with a Squeeze between it and an operation with a constant of several values, as log n of the merged tokens
    of cells has: OpenVINO's CPU device (2026.4) fuses the two, and then reads the constant at wrong places where a batch has
    several images."""
    if reduction.attrs.get("keepdims", 1) or len(reduction.inputs) < 2 or not _meets_a_vector(reduction.outputs[0]):
        return
    kept, result = gs.Variable(f"{reduction.name}.kept", reduction.outputs[0].dtype), reduction.outputs[0]
    reduction.attrs["keepdims"] = 1
    reduction.outputs = [kept]
    graph.nodes.append(gs.Node("Squeeze", f"{reduction.name}.Squeeze", {}, [kept, reduction.inputs[1]], [result]))


def _meets_a_vector(tensor: gs.Tensor) -> bool:
    """Whether an operation for each element of `tensor`, or of what such operations make of it, takes a constant of several
    values."""
    users = [node for node in tensor.outputs if node.op in _ELEMENTWISE]
    constants = [other for node in users for other in node.inputs if isinstance(other, gs.Constant)]
    # the shape alone: values of some size are in the weights file by now
    return any(math.prod(c.shape) > 1 for c in constants) or any(_meets_a_vector(node.outputs[0]) for node in users)


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None


def _shaped(
    graph: gs.Graph, tensor: gs.Tensor, shape: list[int], name: str, result: gs.Variable | None = None
) -> gs.Variable:
    """`tensor` with another `shape`, as `result` or as a new tensor `name`."""
    made = gs.Variable(name, tensor.dtype) if result is None else result
    constant = gs.Constant(f"{name}.shape", np.array(shape, np.int64))
    graph.nodes.append(gs.Node("Reshape", f"{name}.Reshape", {}, [tensor, constant], [made]))
    return made
