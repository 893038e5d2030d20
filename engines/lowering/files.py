"""Reading a bundle's step without reading its weights, and writing a part with them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.external_data_helper import set_external_data
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

G_LOGGER.severity = (
    G_LOGGER.ERROR
)  # it prints warnings on stdout: colours that are not supported, bfloat16 that numpy lacks
EXTERNAL_FROM = 1024  # bytes: smaller constants stay in the ONNX file
ALIGNMENT = 4096  # so that weights can be mapped


def read_step(file: Path) -> gs.Graph:
    """The graph in `file`; its external weights are mapped, not read."""
    model = onnx.load(file, load_external_data=False)
    graph = gs.import_onnx(model)
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.dtype == onnx.TensorProto.FLOAT8E4M3FN:
            tensor.dtype = np.dtype(ml_dtypes.float8_e4m3fn)  # of which onnx_graphsurgeon knows no numpy type
        if not isinstance(tensor, gs.Constant) or not isinstance(tensor._values, LazyValues):
            continue
        proto = tensor._values.tensor
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in proto.external_data}
            dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
            tensor.values = np.memmap(
                file.parent / place["location"],
                dtype=dtype,
                mode="r",
                offset=int(place.get("offset", 0)),
                shape=tuple(proto.dims),
            )
        elif proto.data_type == onnx.TensorProto.FLOAT8E4M3FN:
            tensor.values = onnx.numpy_helper.to_array(proto)
    return graph


def write_part(graph: gs.Graph, file: Path) -> None:
    """Write `graph` to `file`, and its large constants beside it, in the types that they are to have. The constants' values
    are freed: the graph is not usable afterwards."""
    weights = file.with_suffix(".weights")
    with weights.open("wb") as stream:
        for tensor in graph.tensors().values():
            if not isinstance(tensor, gs.Constant):
                continue
            dtype = np.dtype(tensor.export_dtype)
            with np.errstate(over="ignore"):  # a weight that is too large becomes inf, and the accuracy check finds it
                data = np.asarray(tensor.values, dtype, order="C")
            tensor._values, tensor._export_dtype = data, None
            if data.nbytes < EXTERNAL_FROM:
                continue
            stream.write(bytes(-stream.tell() % ALIGNMENT))
            proto = onnx.TensorProto(
                name=tensor.name, dims=data.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(dtype), raw_data=b""
            )
            set_external_data(proto, location=weights.name, offset=stream.tell(), length=data.nbytes)
            proto.ClearField("raw_data")
            stream.write(data.view(np.uint8).data)
            tensor._values = LazyValues(proto)
    for tensor in graph.tensors().values():  # sizes between the nodes are the builder's to infer
        if isinstance(tensor, gs.Variable) and tensor not in (*graph.inputs, *graph.outputs):
            tensor.shape = None
    if not graph.functions:
        graph.import_domains = None
    file.write_bytes(gs.export_onnx(graph, do_type_check=False).SerializeToString())
