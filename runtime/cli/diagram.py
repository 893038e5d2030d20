"""Draws a chain, its steps and the tensors between them, as SVG or in Graphviz's language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dovit.runtime.buffers import ChainStep
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import printable

WIDTH, HEIGHT, GAP, LEFT, TOP = 320, 46, 44, 40, 30  # of a box, between boxes, and around them; pixels
REACH = 26  # how much further out a line runs for every box that it passes
COLOURS = {
    "plan": "#dbe9f6",
    "step": "#dbe9f6",
    "decide": "#fde3c8",
    "gather": "#fde3c8",
    "reconstruct": "#e3f2d9",
    "labels": "#f2dcea",
}
INPUT = "input"


@dataclass(frozen=True)
class Edge:
    """Tensors from box `source` (-1: the user) to box `target`."""

    source: int
    target: int
    tensors: tuple[TensorSpec, ...]


def chain_edges(steps: Sequence[ChainStep]) -> list[Edge]:
    """The edges of a chain, those between the same two boxes as one."""
    maker = {spec.name: number for number, step in enumerate(steps) for spec in step.outputs}
    grouped: dict[tuple[int, int], list[TensorSpec]] = {}
    for number, step in enumerate(steps):
        for spec in step.inputs:
            grouped.setdefault((maker.get(spec.name, -1), number), []).append(spec)
    return [Edge(source, target, tuple(specs)) for (source, target), specs in sorted(grouped.items())]


def chain_dot(steps: Sequence[ChainStep]) -> str:
    """The chain in Graphviz's language: `dovit-inspect engines/ --dot chain.dot; dot -Tpdf chain.dot`."""
    lines = [
        "digraph chain {",
        "  node [shape=box, style=filled, fontname=sans];",
        "  edge [fontname=sans, fontsize=10];",
    ]
    for number, step in enumerate(steps):
        lines.append(f'  s{number} [label="{_quoted(step.name)}", fillcolor="{COLOURS[_kind(step)]}"];')
    lines.append(f'  user [label="{INPUT}", shape=ellipse, fillcolor=white];')
    for edge in chain_edges(steps):
        source = "user" if edge.source < 0 else f"s{edge.source}"
        label = r"\l".join(_quoted(_tensor(spec)) for spec in edge.tensors)
        lines.append(f'  {source} -> s{edge.target} [label="{label}\\l"];')
    return "\n".join([*lines, "}"]) + "\n"


def chain_svg(steps: Sequence[ChainStep]) -> str:
    """The chain from top to bottom; edges that skip steps are drawn beside them."""
    edges = chain_edges(steps)
    skips = [e for e in edges if e.source >= 0 and e.target - e.source > 1]
    reach = REACH * max((e.target - e.source for e in skips), default=1)
    width = LEFT + WIDTH + reach + 360
    height = TOP + len(steps) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#456"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for edge in edges:
        if edge.source < 0:
            continue
        parts.append(_beside(edge) if edge.target - edge.source > 1 else _down(edge))
    for number, step in enumerate(steps):
        inputs = [spec for edge in edges if edge.target == number and edge.source < 0 for spec in edge.tensors]
        parts.append(_box(number, step, inputs))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(number: int, step: ChainStep, inputs: Sequence[TensorSpec]) -> str:
    y = _top(number)
    about = _about(step)
    if inputs:
        about += f"; reads {', '.join(spec.name for spec in inputs)}"
    return (
        f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{COLOURS[_kind(step)]}" stroke="#456"/>\n'
        f'<text x="{LEFT + 12}" y="{y + 19}" font-size="14" font-weight="bold">{_escaped(step.name)}</text>\n'
        f'<text x="{LEFT + 12}" y="{y + 36}" fill="#345">{_escaped(about)}</text>'
    )


def _down(edge: Edge) -> str:
    x, start, end = LEFT + WIDTH // 2, _top(edge.source) + HEIGHT, _top(edge.target)
    lines = [f'<path d="M{x} {start}V{end}" fill="none" stroke="#456" marker-end="url(#tip)"/>']
    for row, spec in enumerate(edge.tensors[:3]):
        more = f" +{len(edge.tensors) - 3}" if row == 2 and len(edge.tensors) > 3 else ""
        lines.append(
            f'<text x="{x + 8}" y="{start + 12 + 12 * row}" fill="#456">{_escaped(_tensor(spec) + more)}</text>'
        )
    return "\n".join(lines)


def _beside(edge: Edge) -> str:
    right = LEFT + WIDTH
    start, end = _top(edge.source) + HEIGHT - 8, _top(edge.target) + 10
    out = right + REACH * (edge.target - edge.source)
    path = f"M{right} {start}C{out} {start} {out} {start} {out} {start + 20}V{end - 20}C{out} {end} {out} {end} {right} {end}"
    names = ", ".join(spec.name for spec in edge.tensors)
    return (
        f'<path d="{path}" fill="none" stroke="#9ab" marker-end="url(#tip)"/>\n'
        f'<text x="{out + 4}" y="{(start + end) // 2 + 6 * (edge.target - edge.source)}" fill="#678">{_escaped(names)}</text>'
    )


def _top(number: int) -> int:
    return TOP + number * (HEIGHT + GAP)


def _kind(step: ChainStep) -> str:
    return step.kind if isinstance(step, PlanStep) else "step"


def _about(step: ChainStep) -> str:
    if not isinstance(step, PlanStep):
        return "ONNX"
    if step.plan is None:
        return f"{step.kind}, by the runtime"
    ranges = ", ".join(f"{p.least}…{p.most}" for p in step.plan.profiles)
    return "plan" + (f", {ranges} tokens" if ranges else "")


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _escaped(text: str) -> str:
    return escape(printable(text))  # XML has no escape for control characters


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
