"""Cutting a whole-model graph at its decision layers: stem, block2 … block{D+1}, decoder.

Works on any graph whose blocks are joined by TokenDecide, TokenGather and TokenReconstruct nodes, however it was made.
A step begins with the gather that its block needs, so that the number of kept tokens, which the decision before it
found, is known when the step starts and all but one of its outputs have a known shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN


@dataclass(frozen=True)
class StepGraph:
    """One step: its name and its graph, whose inputs and outputs are named as in the whole graph."""

    name: str
    graph: gs.Graph


def split(graph: gs.Graph) -> list[StepGraph]:
    """The steps of `graph` in order. Raises ValueError where the token-pass nodes do not form a chain."""
    graph.toposort()
    nodes = list(graph.nodes)
    producer = {id(tensor): n for n, node in enumerate(nodes) for tensor in node.outputs}
    parents = [{producer[id(t)] for t in node.inputs if id(t) in producer} for node in nodes]

    gathers = [n for n, node in enumerate(nodes) if _is(node, "TokenGather")]
    decides = {n for n, node in enumerate(nodes) if _is(node, "TokenDecide")}
    if len(gathers) != len(decides):
        raise ValueError(f"{len(decides)} TokenDecide nodes but {len(gathers)} TokenGather nodes")

    reaches = [False] * len(nodes)  # a decision or a gather lies downstream
    for n in reversed(range(len(nodes))):
        if reaches[n] or n in decides or n in gathers:
            for parent in parents[n]:
                reaches[parent] = True
    # reconstructions that feed no decision feed the decoder: the last one is the decoder's own, the others are taps
    final = [n for n, node in enumerate(nodes) if _is(node, "TokenReconstruct") and not reaches[n]]
    if not final:
        raise ValueError("no TokenReconstruct node joins the last block and the decoder")
    blocks = len(gathers) + 1
    step = [0] * len(nodes)
    for n in range(len(nodes)):
        step[n] = max([step[p] for p in parents[n]], default=0)
        if n in gathers:
            step[n] += 1
    own = max(final, key=lambda n: (step[n], _depth(n, parents)))
    for n in range(len(nodes)):
        tapped = any(p in final or step[p] == blocks for p in parents[n])
        if n == own or (tapped and n not in final):
            step[n] = blocks

    # nodes that depend on no input, but on constants alone, go where they are first needed
    constant = [False] * len(nodes)
    for n in range(len(nodes)):
        constant[n] = all(constant[p] for p in parents[n]) and not any(t in graph.inputs for t in nodes[n].inputs)
    for n in reversed(range(len(nodes))):
        if constant[n]:
            users = [step[m] for m in range(len(nodes)) if n in parents[m]]
            step[n] = min(users, default=step[n])
    names = ["stem", *(f"block{k}" for k in range(2, blocks + 1)), "decoder"]
    return [
        _cut(graph, name, [node for node, s in zip(nodes, step, strict=True) if s == k]) for k, name in enumerate(names)
    ]


def _is(node: gs.Node, op: str) -> bool:
    return bool(node.op == op and node.domain == OPERATOR_DOMAIN)


def _depth(n: int, parents: list[set[int]]) -> int:
    """How many nodes lie upstream of node n: the decoder's reconstruction sees the whole last block."""
    seen, todo = set(), [n]
    while todo:
        for parent in parents[todo.pop()]:
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return len(seen)


def _cut(graph: gs.Graph, name: str, nodes: list[gs.Node]) -> StepGraph:
    inside = {id(node) for node in nodes}
    made = {id(t) for node in nodes for t in node.outputs}
    inputs: dict[str, gs.Variable] = {}
    outputs: dict[str, gs.Variable] = {}
    for node in nodes:
        for t in node.inputs:
            if isinstance(t, gs.Variable) and not t.is_empty() and id(t) not in made:
                inputs[t.name] = t
        for t in node.outputs:
            used_outside = any(id(user) not in inside for user in t.outputs)
            # no later step needs a confidence, but it is a result for the caller
            seen = t in graph.outputs or any(_is(user, "TokenDecide") and user.inputs[0] is t for user in t.outputs)
            if used_outside or seen:
                outputs[t.name] = t
    part = gs.Graph(
        nodes=nodes,
        inputs=list(inputs.values()),
        outputs=list(outputs.values()),
        name=name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        ir_version=graph.ir_version,
    )
    return StepGraph(name, part)
