"""Writing a step: a small ONNX file that reads well, and its weights beside it, one copy, streamed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.external_data_helper import set_external_data
from onnx_graphsurgeon.ir.tensor import LazyValues

from dovit.export.graph.functions import functions_of
from dovit.export.graph.openvino import inlined, label_part, precision_parts
from dovit.export.graph.openvino_rewrites import rewrite
from dovit.export.graph.split import StepGraph
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN

EXTERNAL_FROM = 1024  # bytes: smaller constants stay in the ONNX file, where shape inference can see them
ALIGNMENT = 4096  # so that a backend can map a weight from the file


@dataclass(frozen=True)
class SavedFile:
    """A written file by its path within the bundle."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class SavedStep:
    """The files of a step: its ONNX file, the same for OpenVINO, and the weights that both refer to, if there are any."""

    onnx: SavedFile
    openvino: tuple[SavedFile, ...]
    weights: SavedFile | None

    @property
    def files(self) -> tuple[SavedFile, ...]:
        """All of them."""
        return (self.onnx, *self.openvino, *([self.weights] if self.weights else []))


def save_step(step: StepGraph, folder: Path) -> SavedStep:
    """Write `step` into `folder` as `<name>-<hash>.onnx` and `<name>-<hash>.weights`, and what OpenVINO reads beside them.

    Names carry a part of their content's hash, so two exports never overwrite each other's files.
    """
    weights = _save_weights(step, folder)
    model = gs.export_onnx(step.graph, do_type_check=False)
    model.producer_name = "dovit"
    used = {node.op_type for node in model.graph.node if node.domain == OPERATOR_DOMAIN}
    if used:  # TokenGather's body calls TokenReconstruct
        used |= {"TokenReconstruct"}
        model.functions.extend(f for f in functions_of(step.graph) if f.name in used)
    saved = _save(step.name, model.SerializeToString(), folder)
    decisions = {node.inputs[0].name for node in step.graph.nodes if node.op == "TokenDecide"}
    *body, last = precision_parts(rewrite(step.graph), {"logits", *decisions})
    parts = [*body, *label_part(last)]
    names = [f"{step.name}.{part}" for part in ("body", "tail", "labels")] if len(parts) > 1 else [step.name]
    openvino = tuple(_save(name, inlined(part), folder) for name, part in zip(names, parts, strict=False))
    return SavedStep(saved, openvino, weights)


def _save(name: str, content: bytes, folder: Path) -> SavedFile:
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.onnx"
    (folder / file).write_bytes(content)
    return SavedFile(file, digest, len(content))


def _save_weights(step: StepGraph, folder: Path) -> SavedFile | None:
    """Stream the large constants into one file and leave references to it in the graph."""
    constants = [
        tensor
        for tensor in step.graph.tensors().values()
        if isinstance(tensor, gs.Constant) and tensor.values.nbytes >= EXTERNAL_FROM
    ]
    if not constants:
        return None
    part = folder / f"{step.name}.weights.part"
    digest = hashlib.sha256()
    places: list[tuple[int, int]] = []
    with part.open("wb") as stream:
        for tensor in constants:
            padding = bytes(-stream.tell() % ALIGNMENT)
            data = np.ascontiguousarray(tensor.values).reshape(-1).view(np.uint8).data  # of any type, fp8 included
            places.append((stream.tell() + len(padding), len(data)))
            for chunk in (padding, data):
                stream.write(chunk)
                digest.update(chunk)
        size = stream.tell()
    name = f"{step.name}-{digest.hexdigest()[:12]}.weights"
    part.rename(folder / name)
    for tensor, (offset, length) in zip(constants, places, strict=True):
        proto = onnx.TensorProto(
            name=tensor.name,
            dims=tensor.values.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(tensor.values.dtype),
            raw_data=b"",
        )
        set_external_data(proto, location=name, offset=offset, length=length)
        proto.ClearField("raw_data")
        tensor.values = LazyValues(proto)
    return SavedFile(name, digest.hexdigest(), size)
