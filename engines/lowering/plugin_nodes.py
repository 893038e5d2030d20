"""The token pass's nodes as calls of TensorRT's plugins, in plans that a CUDA graph can hold."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, PLUGIN_ATTRIBUTES


def call_plugins(graph: gs.Graph) -> None:
    """Give every tensor of `graph` a size that is known before the plan runs: one of a data-dependent shape cannot be captured.

    TokenDecide's keep gets room for all tokens, [B, M] int32, of which the first B·K numbers are the list, and a second output
    with K, [] int32, which becomes an output of the graph. The functions go: a missing plugin is to be an error.
    """
    for node in graph.nodes:
        if node.domain != OPERATOR_DOMAIN:
            continue
        node.attrs |= PLUGIN_ATTRIBUTES  # which files of older bundles do not have
        if node.op == "TokenDecide":
            confidence, [keep] = node.inputs[0], node.outputs
            node.attrs["fixed_capacity"] = 1
            keep.shape = list(confidence.shape)
            capacity = gs.Variable(f"{keep.name}_capacity", np.int32, [])
            node.outputs.append(capacity)
            graph.outputs.append(capacity)
    graph.functions = []
