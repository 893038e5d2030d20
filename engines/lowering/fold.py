"""Batch norms into the convolutions before them: fewer operations, and no float32 between a convolution and its activation."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs


def fold_batch_norms(graph: gs.Graph) -> None:
    """Turn every Conv → BatchNormalization of `graph` into one Conv, in place: with s = γ / √(σ² + ε), the weights are w·s and
    the bias is (b − μ)·s + β. Computed in float64, kept as float32."""
    for norm in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        values = norm.inputs[0]
        conv = values.inputs[0] if values.inputs else None
        if conv is None or conv.op != "Conv" or len(values.outputs) != 1 or values in graph.outputs:
            continue
        scale, shift, mean, variance = (t.values.astype(np.float64) for t in norm.inputs[1:])
        scale = scale / np.sqrt(variance + norm.attrs.get("epsilon", 1e-5))
        weight = conv.inputs[1]
        bias = conv.inputs[2].values if len(conv.inputs) > 2 else np.zeros_like(mean)
        folded = weight.values * scale.reshape(-1, *[1] * (weight.values.ndim - 1))
        conv.inputs = [
            conv.inputs[0],
            gs.Constant(f"{weight.name}/folded", folded.astype(np.float32)),
            gs.Constant(f"{norm.inputs[2].name}/folded", ((bias - mean) * scale + shift).astype(np.float32)),
        ]
        conv.outputs = [norm.outputs[0]]
        norm.inputs.clear()
        norm.outputs.clear()
        graph.nodes.remove(norm)
