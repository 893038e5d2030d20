"""The end of a decoder, which a kernel does better than a plan: bilinear upsampling by a whole number, and argmax.

A plan writes the logits at full size, a hundred times the labels' bytes, and reads them again; the kernel `labels` does neither.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs


def labels_nodes(graph: gs.Graph) -> list[gs.Node]:
    """The nodes from an output of `graph` to its output `labels`, in order; none where they compute anything else."""
    labels = next((t for t in graph.outputs if t.name == "labels"), None)
    cast = _maker(labels, "Cast")
    argmax = _maker(cast and cast.inputs[0], "ArgMax", axis=1, keepdims=0, select_last_index=0)
    resize = _maker(
        argmax and argmax.inputs[0], "Resize", mode="linear", coordinate_transformation_mode="half_pixel", antialias=0
    )
    if labels is None or cast is None or argmax is None or resize is None:
        return []
    logits = resize.inputs[0]
    if logits not in graph.outputs or logits.dtype != np.float32 or not _is_whole_multiple(logits.shape, labels.shape):
        return []
    chain = [resize, argmax, cast]
    if any(len(node.outputs[0].outputs) != 1 or node.outputs[0] in graph.outputs for node in chain[:-1]):
        return []
    return [*_sizes_of(resize, logits), *chain]


def _maker(tensor: gs.Tensor | None, op: str, **attributes: object) -> gs.Node | None:
    """The node that makes `tensor`, if it is such a one. An attribute that is not given has ONNX's default, which is ours."""
    node = tensor.inputs[0] if tensor is not None and tensor.inputs else None
    if node is None or node.op != op or any(node.attrs.get(name, value) != value for name, value in attributes.items()):
        return None
    return node if node.attrs.get("mode") == attributes.get("mode") else None


def _is_whole_multiple(small: list[int | str], large: list[int | str]) -> bool:
    """[B, C, h, w] and [B, s·h, s·w]."""
    sizes = [size for size in (*small[2:], *large[1:]) if isinstance(size, int) and size > 0]
    if len(sizes) != 4 or (len(small), len(large)) != (4, 3):
        return False
    h, w, height, width = sizes
    return height % h == 0 and (height // h) * w == width


def _sizes_of(resize: gs.Node, logits: gs.Tensor) -> list[gs.Node]:
    """The nodes that only tell `resize` how large its output is to be."""
    found: list[gs.Node] = []
    todo = [maker for tensor in resize.inputs if tensor is not logits for maker in tensor.inputs]
    while todo:
        node = todo.pop()
        if node not in found:
            found.append(node)
            todo += [maker for tensor in node.inputs if tensor is not logits for maker in tensor.inputs]
    return found[::-1]
