"""From a model to the files and the manifest of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from dovit.export.describe import describe
from dovit.export.graph.assemble import assemble
from dovit.export.graph.save import save_step
from dovit.export.graph.split import StepGraph, split
from dovit.export.macs import step_macs
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import FileEntry, Manifest, Step
from dovit.runtime.bundle.tensors import TensorSpec

FOLDER = "onnx"


def build(model: DoViT, capacities: tuple[int, ...], folder: Path, progress: Callable[[str], None]) -> Manifest:
    """Write the subgraphs of `model` into `folder`/onnx and describe them. `progress` hears the name of each part."""
    config = model.config
    progress("tracing")
    steps = split(assemble(model))
    (folder / FOLDER).mkdir()
    described: list[Step] = []
    files: dict[str, FileEntry] = {}
    for step, macs in zip(steps, step_macs(config), strict=True):
        progress(f"exporting the steps: {step.name}")
        inputs, outputs = _specs(step.graph.inputs), _specs(step.graph.outputs)
        parameters = _parameters(step)
        saved = save_step(step, folder / FOLDER)
        files |= {f"{FOLDER}/{file.path}": FileEntry(sha256=file.sha256, size=file.size) for file in saved.files}
        described.append(
            Step(
                name=step.name,
                onnx=f"{FOLDER}/{saved.onnx.path}",
                openvino=tuple(f"{FOLDER}/{file.path}" for file in saved.openvino),
                inputs=inputs,
                outputs=outputs,
                parameters=parameters,
                macs=macs,
            )
        )
    return describe(config, capacities, described, files)


def _specs(tensors: list[gs.Variable]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, dtype=np.dtype(t.dtype).name, shape=tuple(t.shape)) for t in tensors)


def _parameters(step: StepGraph) -> int:
    """Weights of a step: constants of the graph that are more than a scalar or a shape."""
    weights = [t.values for t in step.graph.tensors().values() if isinstance(t, gs.Constant)]
    return int(sum(w.size for w in weights if w.dtype == np.float32 and w.size > 1))
