"""Cutting the token pass out of a step, for flavours that have no plugins for it (see plugin_nodes.py for the other).

What remains are graphs of standard operators, one a plan, and the operations between them, which the runtime does:

    block 2:  gather ─▶ plan (layers, head) ─▶ decide          a head of a larger kernel: gather ─▶ plan (layers)
    decoder:  reconstruct ─▶ plan (norm, decoder) ─▶ labels            ─▶ reconstruct ─▶ plan (head) ─▶ decide
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_graphsurgeon as gs

from dovit.engines.lowering.labels import labels_nodes
from dovit.engines.lowering.plugin_nodes import call_plugins
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN

Kind = Literal["plan", "decide", "gather", "reconstruct", "labels"]
KINDS: dict[str, Kind] = {"TokenDecide": "decide", "TokenGather": "gather", "TokenReconstruct": "reconstruct"}
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Part:
    """A graph for the builder (`kind` is plan), or what a kernel does, in a graph of its own."""

    name: str
    kind: Kind
    graph: gs.Graph


def cut_parts(graph: gs.Graph, step: str, *, plugins: bool = False) -> list[Part]:
    """The parts of the step `step`, in an order in which they can run. With `plugins` the step is one plan.

    Raises ValueError for a custom node that is not of the token pass: a builder would end the process over it.
    """
    graph.toposort()
    foreign = [node for node in graph.nodes if node.domain not in (None, *STANDARD_DOMAINS) and not _is_ours(node)]
    if foreign:
        raise ValueError(f"node {foreign[0].name} is {foreign[0].domain}.{foreign[0].op}, which no flavour can build")
    if plugins:
        call_plugins(graph)
        return [Part(step, "plan", graph)]

    tail = labels_nodes(graph)
    producer = {id(tensor): node for node in graph.nodes for tensor in node.outputs}
    stage: dict[int, int] = {}  # how many operations lie upstream of a node: standard nodes of one stage are one plan
    for node in graph.nodes:
        before = [producer[id(t)] for t in node.inputs if id(t) in producer]
        stage[id(node)] = max((stage[id(b)] + _is_ours(b) for b in before), default=0)
    _move_roots(graph, stage)

    parts: list[Part] = []
    for number in range(max(stage.values(), default=0) + 1):
        here = [node for node in graph.nodes if stage[id(node)] == number and node not in tail]
        standard = [node for node in here if not _is_ours(node)]
        if standard:
            plans = sum(part.kind == "plan" for part in parts)
            name = step if plans == 0 else f"{step}-{plans + 1}"
            parts.append(Part(name, "plan", _subgraph(graph, name, standard)))
        parts += [
            Part(node.name, KINDS[node.op], _subgraph(graph, node.name, [node])) for node in here if _is_ours(node)
        ]
    if tail:
        parts.append(Part("labels", "labels", _subgraph(graph, "labels", tail)))
    return parts


def _is_ours(node: gs.Node) -> bool:
    return bool(node.domain == OPERATOR_DOMAIN and node.op in KINDS)


def _move_roots(graph: gs.Graph, stage: dict[int, int]) -> None:
    """Standard nodes that need no operation's result, but that only later stages use, join those: else a plan that
    only turns a shape into another one would come before a gather."""
    for node in reversed(graph.nodes):
        if _is_ours(node) or any(t in graph.outputs for t in node.outputs):
            continue
        users = [stage[id(user)] for t in node.outputs for user in t.outputs]
        stage[id(node)] = min(users, default=stage[id(node)])


def _subgraph(graph: gs.Graph, name: str, nodes: list[gs.Node]) -> gs.Graph:
    """A graph of `nodes` with copies of their tensors, so that parts can be changed independently."""
    inside = {id(node) for node in nodes}
    copies: dict[int, gs.Tensor] = {}

    def copied(tensor: gs.Tensor, *, call: bool = False) -> gs.Tensor:
        if tensor.is_empty():
            return gs.Variable.empty()
        if id(tensor) not in copies:
            if isinstance(tensor, gs.Constant) and not call:
                copies[id(tensor)] = gs.Constant(tensor.name, tensor._values)  # mapped or not yet loaded, so no copy
            else:
                shape = tensor.values.shape if isinstance(tensor, gs.Constant) else tensor.shape
                copies[id(tensor)] = gs.Variable(tensor.name, tensor.dtype, None if shape is None else list(shape))
        return copies[id(tensor)]

    inputs: dict[str, gs.Tensor] = {}
    outputs: dict[str, gs.Tensor] = {}
    made = {id(t) for node in nodes for t in node.outputs}
    part = gs.Graph(
        name=name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        functions=graph.functions if any(_is_ours(node) for node in nodes) else None,
        ir_version=graph.ir_version,
    )
    for node in nodes:
        # an operation is a call, so constants become arguments
        given = [copied(t, call=_is_ours(node)) for t in node.inputs]
        for source, copy in zip(node.inputs, given, strict=True):
            if isinstance(copy, gs.Variable) and not copy.is_empty() and id(source) not in made:
                inputs[copy.name] = copy
        for t in node.outputs:
            if t in graph.outputs or any(id(user) not in inside for user in t.outputs):
                outputs[t.name] = copied(t)
        part.nodes.append(
            gs.Node(node.op, node.name, dict(node.attrs), given, [copied(t) for t in node.outputs], node.domain)
        )
    part.inputs, part.outputs = list(inputs.values()), list(outputs.values())
    return part
