"""The range of each product's input, over the tokens that reach it when the chain runs at the bundle's ξ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from dovit.engines.lowering.files import read_step, write_part
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain
from dovit.runtime.engine import OnnxRuntimeEngine

MAX_ROWS = 512  # tokens of all images that a product's input is known by
MAX_TAPPED_BYTES = 512 << 20  # of a pass: larger models are run several times, each time for some of their products


@dataclass
class Ranges:
    """Of a product's input [B, M, C]: the least and the largest value of each channel, and some tokens."""

    least: np.ndarray  # [C]
    largest: np.ndarray  # [C]
    rows: list[np.ndarray] = field(default_factory=list)  # each [R, C]

    @property
    def sample(self) -> np.ndarray:
        """[R, C]: tokens of all images."""
        return np.concatenate(self.rows)

    @property
    def magnitude(self) -> np.ndarray:
        """[C]: the largest absolute value of each channel."""
        return np.maximum(np.abs(self.least), np.abs(self.largest))


def products(graph: gs.Graph) -> list[gs.Node]:
    """The products of activations and weights in the layers of the backbone: attention's own products have no weights, and
    decision heads, lenses, corrections, refinements and decoders stay in floating point."""
    return [
        node
        for node in graph.nodes
        if node.op == "MatMul"
        and node.name.startswith("layers.")
        and isinstance(node.inputs[0], gs.Variable)
        and isinstance(node.inputs[1], gs.Constant)
        and len(node.inputs[1].shape) == 2
    ]


def observe(
    bundle: Bundle, images: Sequence[np.ndarray], scratch: Path, progress: Callable[[str], None]
) -> dict[str, Ranges]:
    """The ranges by the name of the tensor. `images`: [H, W, 3] uint8 of the bundle's size. A product that no token reached at
    the bundle's ξ is observed where every token is kept."""
    manifest = bundle.manifest
    found: dict[str, Ranges] = {}
    engines = [
        _ObservingEngine(step.name, bundle.onnx(step), scratch, found, max(1, MAX_ROWS // len(images)))
        for step in manifest.steps
    ]
    chain = Chain(manifest, engines)
    every = range(manifest.tokens + 1)
    for number, image in enumerate(images, start=1):
        progress(f"calibrating: image {number} of {len(images)}")
        chain.run(image[None], manifest.thresholds, every)
    missing = [engine for engine in engines if engine.unobserved()]
    if missing:
        progress("calibrating: blocks that no token reached, with every token kept")
        for engine in engines:
            engine.active = engine in missing
        counts = [manifest.tokens] * len(manifest.decisions)
        for image in images:
            chain.run(image[None], manifest.thresholds, every, counts=counts)
    return found


class _ObservingEngine:
    """A step that also makes the inputs of its products, and records them. See `dovit.runtime.engine.Engine`."""

    def __init__(self, name: str, file: Path, scratch: Path, found: dict[str, Ranges], rows: int) -> None:
        graph = read_step(file)
        widths = {node.inputs[0].name: int(node.inputs[1].shape[0]) for node in products(graph)}
        there = {t.name for t in (*graph.outputs, *graph.inputs)}
        tensors = graph.tensors()
        for tapped in set(widths) - there:
            tensors[tapped].dtype = np.dtype(np.float32)
            graph.outputs.append(tensors[tapped])
        tapped_file = scratch / f"{name}-observed.onnx"
        write_part(graph, tapped_file)
        self._engine = OnnxRuntimeEngine(name, tapped_file, prepack=False)
        self._widths, self._found, self._rows = widths, found, rows
        self._random = np.random.default_rng(0)
        self.active = True

    def unobserved(self) -> bool:
        """Whether some product has seen no token."""
        return any(name not in self._found for name in self._widths)

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        made = self._engine.run(inputs, outputs)
        if self.active and self._widths:
            tokens = max((array.shape[1] for array in (*inputs.values(), *made.values()) if array.ndim == 3), default=1)
            size = 4 * tokens * max(self._widths.values())
            together = max(1, MAX_TAPPED_BYTES // size)
            names = list(self._widths)
            for first in range(0, len(names), together):
                some = names[first : first + together]
                for name, values in self._engine.run(inputs, dict.fromkeys(some)).items():
                    self._record(name, values.reshape(-1, values.shape[-1]))
        return made

    def _record(self, name: str, values: np.ndarray) -> None:
        if not len(values):
            return
        least, largest = values.min(axis=0), values.max(axis=0)
        found = self._found.setdefault(name, Ranges(least, largest))
        found.least, found.largest = np.minimum(found.least, least), np.maximum(found.largest, largest)
        if sum(map(len, found.rows)) < MAX_ROWS:
            chosen = self._random.choice(len(values), min(self._rows, len(values)), replace=False)
            found.rows.append(values[chosen])
