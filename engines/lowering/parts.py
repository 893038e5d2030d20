"""Cutting the token pass out of a step, for flavours that have no plugins for it.

What remains are graphs of standard operators, one a plan, and the operations between them, which the runtime does:

    block 2:  gather ─▶ plan (layers, head) ─▶ decide          a head of a larger kernel: gather ─▶ plan (layers)
    decoder:  reconstruct ─▶ plan (norm, decoder, argmax)              ─▶ reconstruct ─▶ plan (head) ─▶ decide
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN

Kind = Literal["plan", "decide", "gather", "reconstruct"]
KINDS: dict[str, Kind] = {"TokenDecide": "decide", "TokenGather": "gather", "TokenReconstruct": "reconstruct"}
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Part:
    """A graph for the builder (`kind` is plan), or one of the token pass's nodes in a graph of its own."""

    name: str
    kind: Kind
    graph: gs.Graph


def cut_parts(graph: gs.Graph, step: str, *, plugins: bool = False) -> list[Part]:
    """The parts of the step `step`, in an order in which they can run. With `plugins` the step is one plan as it is.

    Raises ValueError for a custom node that is not of the token pass: a builder would end the process over it.
    """
    graph.toposort()
    foreign = [node for node in graph.nodes if node.domain not in (None, *STANDARD_DOMAINS) and not _is_ours(node)]
    if foreign:
        raise ValueError(f"node {foreign[0].name} is {foreign[0].domain}.{foreign[0].op}, which no flavour can build")
    if plugins:
        return [Part(step, "plan", graph)]

    producer = {id(tensor): node for node in graph.nodes for tensor in node.outputs}
    stage: dict[int, int] = {}  # how many operations lie upstream of a node: standard nodes of one stage are one plan
    for node in graph.nodes:
        before = [producer[id(t)] for t in node.inputs if id(t) in producer]
        stage[id(node)] = max((stage[id(b)] + _is_ours(b) for b in before), default=0)
    _move_roots(graph, stage)

    parts: list[Part] = []
    for number in range(max(stage.values(), default=0) + 1):
        here = [node for node in graph.nodes if stage[id(node)] == number]
        standard = [node for node in here if not _is_ours(node)]
        if standard:
            plans = sum(part.kind == "plan" for part in parts)
            name = step if plans == 0 else f"{step}-{plans + 1}"
            parts.append(Part(name, "plan", _subgraph(graph, name, standard)))
        parts += [Part(node.name, KINDS[node.op], _subgraph(graph, node.name, [node])) for node in here if _is_ours(node)]
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
    inside = {id(node) for node in nodes}
    made = {id(t) for node in nodes for t in node.outputs}
    inputs: dict[str, gs.Tensor] = {}
    outputs: dict[str, gs.Variable] = {}
    for node in nodes:
        if _is_ours(node):  # an operation is a call: what was a constant of the graph is an argument now
            node.inputs = [_variable(t) if isinstance(t, gs.Constant) else t for t in node.inputs]
        for t in node.inputs:
            if isinstance(t, gs.Variable) and not t.is_empty() and id(t) not in made:
                inputs[t.name] = t
        for t in node.outputs:
            if t in graph.outputs or any(id(user) not in inside for user in t.outputs):
                outputs[t.name] = t
    return gs.Graph(
        nodes=nodes, inputs=list(inputs.values()), outputs=list(outputs.values()), name=name, opset=graph.opset,
        import_domains=graph.import_domains, functions=graph.functions, ir_version=graph.ir_version,
    )  # fmt: skip


def _variable(constant: gs.Constant) -> gs.Variable:
    return gs.Variable(constant.name, np.dtype(constant.values.dtype), list(constant.values.shape))
