"""Tracing: each kind of module is traced once, with its weights as graph inputs, and used as often as it occurs.

A ViT-L has 24 layers of one structure: tracing one and binding 24 sets of weights takes a second instead of a minute,
and copies no weight.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import onnx_graphsurgeon as gs
import torch
from torch import Tensor, nn

from dovit.export.graph.functions import OPSET
from dovit.runtime.interrupts import record_interrupts


@dataclass(frozen=True)
class Piece:
    """A traced module: `graph` has the data inputs first, then one input a weight, named as the module names it."""

    graph: gs.Graph
    data: int


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that a forward pass reads, by name."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: t.detach() for name, t in named.items() if not name.endswith("num_batches_tracked")}


class _WithWeights(nn.Module):
    """`module` as a function of its data inputs and of its weights."""

    def __init__(self, module: nn.Module, data: int, names: list[str]) -> None:
        super().__init__()
        self.__dict__["module"] = module  # not a submodule: its parameters must not become constants of the graph
        self.data, self.names = data, names

    def forward(self, *tensors: Tensor) -> object:
        weights = dict(zip(self.names, tensors[self.data :], strict=True))
        return torch.func.functional_call(self.__dict__["module"], weights, tensors[: self.data])


def trace(module: nn.Module, data: dict[str, tuple[Tensor, dict[int, str]]], outputs: list[str]) -> Piece:
    """Trace `module` over `data`: for each input its name, an example, and the names of its dynamic dimensions."""
    weights = weights_of(module)
    sizes = {name: torch.export.Dim(name, min=1, max=1 << 20) for _, dims in data.values() for name in dims.values()}
    shapes = [{d: sizes[n] for d, n in dims.items()} for _, dims in data.values()] + [{}] * len(weights)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter's remarks on opset conversion are not the user's concern
    try:
        # torch converts an interrupt to an error of its own, or tries another way of tracing
        with record_interrupts(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _WithWeights(module, len(data), list(weights)).eval(),
                (*(example for example, _ in data.values()), *weights.values()),
                input_names=[*data, *weights],
                output_names=outputs,
                dynamic_shapes=(tuple(shapes),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(disabled)
    assert program is not None
    return Piece(gs.import_onnx(program.model_proto), len(data))


def add_piece(
    graph: gs.Graph, piece: Piece, name: str, weights: dict[str, Tensor], data: list[gs.Variable]
) -> list[gs.Variable]:
    """Put a copy of `piece` into `graph` over `data`, with `weights` bound; returns its outputs. Names start with `name`."""
    inputs = piece.graph.inputs
    tensors: dict[int, gs.Tensor] = {id(t): d for t, d in zip(inputs[: piece.data], data, strict=True)}
    for tensor in inputs[piece.data :]:
        values = weights[tensor.name].numpy()
        tensors[id(tensor)] = gs.Constant(f"{name}.{tensor.name}", values)
    counts: dict[str, int] = {}

    def copied(tensor: gs.Tensor) -> gs.Tensor:
        if tensor.is_empty():
            return gs.Variable.empty()
        if id(tensor) not in tensors:
            if isinstance(tensor, gs.Constant):
                tensors[id(tensor)] = gs.Constant(f"{name}.{tensor.name}", tensor.values)
            else:
                tensors[id(tensor)] = gs.Variable(f"{name}.{tensor.name}", tensor.dtype, tensor.shape)
        return tensors[id(tensor)]

    for node in piece.graph.nodes:
        given = [copied(tensor) for tensor in node.inputs]
        if node.op == "Transpose" and isinstance(given[0], gs.Constant):
            # a Linear's weight: the transposed view costs nothing, and no backend has to fold it at load time
            view = given[0].values.transpose(node.attrs["perm"])
            tensors[id(node.outputs[0])] = gs.Constant(f"{given[0].name}.T", view)
            continue
        if node.op == "Reshape" and all(isinstance(tensor, gs.Constant) for tensor in given):  # so does this
            view = given[0].values.reshape(given[1].values)
            tensors[id(node.outputs[0])] = gs.Constant(given[0].name, view)
            continue
        weight = next((t.name for t in given if isinstance(t, gs.Constant) and t.values.ndim > 1), None)
        label = weight.removesuffix(".T").removesuffix(".weight") if weight else f"{name}.{node.op}"
        counts[label] = counts.get(label, 0) + 1
        label = label if counts[label] == 1 else f"{label}_{counts[label]}"
        graph.nodes.append(
            gs.Node(node.op, label, dict(node.attrs), given, [copied(t) for t in node.outputs], node.domain)
        )
    return [tensors[id(tensor)] for tensor in piece.graph.outputs]
