"""All of a bundle's steps as a flavour can build them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from dovit.engines.lowering.files import read_step
from dovit.engines.lowering.fold import fold_batch_norms
from dovit.engines.lowering.parts import Part, cut_parts
from dovit.engines.lowering.precision import lower_precision
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, Manifest
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import PlanStep, Precision
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError

QUANTIZING = {"QuantizeLinear", "DequantizeLinear"}
WEIGHT_TYPES = (np.dtype(np.float32), np.dtype(np.int8), np.dtype(ml_dtypes.float8_e4m3fn))


@dataclass(frozen=True)
class LoweredStep:
    """One step of a chain to be: its description, yet without a plan, and its graph."""

    described: PlanStep
    graph: gs.Graph
    parameters: int


def lower_bundle(
    bundle: Bundle,
    precision: Precision,
    *,
    batch: int = 1,
    plugins: bool = False,
    float32_nodes: Collection[str] = (),
) -> list[LoweredStep]:
    """The steps of `bundle` for `batch` images at a time, in `precision`, with nothing custom in a plan unless `plugins`.
    `float32_nodes`: names of nodes that stay float32.

    Weights are mapped from the bundle's files and stay float32 until a graph is written. Raises DovitError for a
    bundle without ONNX files.
    """
    manifest = bundle.manifest
    cut: list[tuple[str, Part]] = []
    for step in manifest.steps:
        graph = read_step(bundle.onnx(step))
        try:
            cut += [(step.name, part) for part in cut_parts(graph, step.name, plugins=plugins)]
        except ValueError as error:
            raise DovitError(f"{bundle.root}: step {step.name} cannot be built: {error}; export it again") from None
    float32 = _float32(manifest, [part for _, part in cut])
    lowered = []
    for step_name, part in cut:
        parameters = _parameters(part.graph)
        if part.kind != "labels":  # whose kernel computes in float32, and has every type of labels
            fold_batch_norms(part.graph)
            _widen_labels(part.graph)
            lower_precision(part.graph, precision, float32, float32_nodes)
        for tensor in (*part.graph.inputs, *part.graph.outputs):
            tensor.shape = [batch if size == "batch" else size for size in tensor.shape]
        described = PlanStep(
            name=part.name,
            step=step_name,
            kind=part.kind,
            inputs=_specs(_arguments(part)),
            outputs=_specs(part.graph.outputs),
        )
        lowered.append(LoweredStep(described, part.graph, parameters))
    return lowered


def _float32(manifest: Manifest, parts: list[Part]) -> set[str]:
    """Tensors between the parts that are float32 in every precision."""
    names = {"logits", *(d.confidence for d in manifest.decisions), *(d.threshold for d in manifest.decisions)}
    for part in parts:
        for node in part.graph.nodes:
            if node.domain == OPERATOR_DOMAIN and node.op == "TokenGather":  # stopped_sum
                names |= {node.inputs[3].name, node.outputs[3].name}
    return names


def _arguments(part: Part) -> list[gs.Variable]:
    """An operation's inputs in the order of its node, which says what each is; a plan's are known by name."""
    return list(part.graph.inputs if part.kind in ("plan", "labels") else part.graph.nodes[0].inputs)


def _parameters(graph: gs.Graph) -> int:
    """Weights of a graph: constants of more than one value, without the scales of quantized ones."""
    scales = {id(t) for node in graph.nodes if node.op in QUANTIZING for t in node.inputs[1:]}
    weights = [t for t in graph.tensors().values() if isinstance(t, gs.Constant) and id(t) not in scales]
    sizes = [int(np.prod(t.shape, dtype=np.int64)) for t in weights if t.dtype in WEIGHT_TYPES]
    return sum(size for size in sizes if size > 1)


def _widen_labels(graph: gs.Graph) -> None:
    """Labels of more than 256 classes are int16, which TensorRT does not have."""
    for tensor in graph.outputs:
        if tensor.dtype == np.int16:
            tensor.dtype = np.dtype(np.int32)
            tensor.inputs[0].attrs["to"] = TensorProto.INT32


def _specs(tensors: list[gs.Variable]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, dtype=np.dtype(t.dtype).name, shape=tuple(t.shape)) for t in tensors)
