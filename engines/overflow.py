"""Which nodes of a bundle make or read values that fp16 cannot hold: they stay float32, so that the others can be fp16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs

from dovit.engines.accuracy import Scene, as_float32, run_scene
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import LoweredStep, lower_bundle
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.progress import Progress

LARGEST_FP16 = 65504.0
MARGIN = 2.0  # other images have other values


def overflowing_nodes(bundle: Bundle, scenes: Sequence[Scene], progress: Progress) -> tuple[str, ...]:
    """The names of nodes whose inputs or outputs are larger than fp16's largest value over MARGIN in the float32 chain, at the
    bundle's ξ and with every token kept."""
    largest: dict[str, float] = {}
    with TemporaryDirectory(prefix=".ranges-", dir=bundle.root) as scratch:
        steps = lower_bundle(bundle, "fp32")
        users = [
            (node.name, [t.name for t in (*node.inputs, *node.outputs) if isinstance(t, gs.Variable)])
            for step in steps
            for node in step.graph.nodes
        ]
        engines = [_WatchingEngine(step, Path(scratch), largest) for step in steps]
        chain = Chain(bundle.manifest, engines, [as_float32(step.described) for step in steps])
        for number, scene in enumerate(scenes, start=1):
            progress(f"looking for values beyond fp16, image {number} of {len(scenes)}")
            for keep_all in (False, True) if bundle.manifest.decisions else (False,):
                run_scene(chain, scene, keep_all=keep_all)
    too_large = {name for name, value in largest.items() if not value <= LARGEST_FP16 / MARGIN}
    return tuple(name for name, tensors in users if not too_large.isdisjoint(tensors))


class _WatchingEngine:
    """A part that records the largest absolute value of every float tensor in it. See `dovit.runtime.engine.Engine`."""

    def __init__(self, step: LoweredStep, scratch: Path, largest: dict[str, float]) -> None:
        graph = step.graph
        self._largest, self._watched = largest, {}
        for node in list(graph.nodes):
            for tensor in node.outputs:
                if tensor.is_empty() or tensor.dtype is None or np.dtype(tensor.dtype) != np.float32:
                    continue
                absolute = gs.Variable(f"{tensor.name}/absolute", np.float32)
                found = gs.Variable(f"{tensor.name}/largest", np.float32, [])
                graph.nodes.append(gs.Node("Abs", f"{tensor.name}/Abs", {}, [tensor], [absolute]))
                graph.nodes.append(gs.Node("ReduceMax", f"{tensor.name}/Max", {"keepdims": 0}, [absolute], [found]))
                graph.outputs.append(found)
                self._watched[found.name] = tensor.name
        file = scratch / f"{step.described.name.replace('/', '-')}-watched.onnx"
        write_part(graph, file)
        self._engine = OnnxRuntimeEngine(step.described.name, file, prepack=False, fuse_quantized=False)

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        made = self._engine.run(inputs, outputs | dict.fromkeys(self._watched))
        for name, tensor in self._watched.items():
            self._largest[tensor] = float(np.maximum(self._largest.get(tensor, 0.0), made.pop(name)))  # a NaN stays one
        return made
