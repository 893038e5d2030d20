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

from dovit.export.graph.functions import token_pass_functions
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


def save_step(step: StepGraph, folder: Path) -> tuple[SavedFile, ...]:
    """Write `step` into `folder` as `<name>-<hash>.onnx` and `<name>-<hash>.weights`; the ONNX file comes first.

    Names carry a part of their content's hash, so two exports never overwrite each other's files.
    """
    weights = _save_weights(step, folder)
    model = gs.export_onnx(step.graph, do_type_check=False)
    model.producer_name = "dovit"
    used = {node.op_type for node in model.graph.node if node.domain == OPERATOR_DOMAIN}
    if used:  # TokenGather's body calls TokenReconstruct
        used |= {"TokenReconstruct"}
        model.functions.extend(f for f in token_pass_functions() if f.name in used)
    content = model.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    name = f"{step.name}-{digest[:12]}.onnx"
    (folder / name).write_bytes(content)
    saved = SavedFile(name, digest, len(content))
    return (saved, weights) if weights else (saved,)


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
            data = np.ascontiguousarray(tensor.values).data.cast("B")
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
