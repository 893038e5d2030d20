"""The dense model as one ONNX graph, put together again from a bundle's steps: what token pass is compared with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from dovit.export.describe import without_cells
from dovit.export.graph.assemble import REFINED, context_name, uncorrected
from dovit.export.graph.openvino import label_part
from dovit.runtime.bundle.macs import StepMacs
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, FileEntry, Step
from dovit.runtime.bundle.open import Bundle, sha256
from dovit.runtime.bundle.write import copy_files


def dense_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """`bundle`'s model without decisions, as ONNX in one step, in the folder `folder`; for OpenVINO the same in two files, the
    second for labels (`label_part`). Raises DovitError for a bundle without ONNX files."""
    manifest = bundle.manifest
    whole = _dense(bundle)
    graph = gs.export_onnx(whole, do_type_check=False)
    copy_files(bundle, folder, [name for name in manifest.files if name.endswith(".weights")])
    beside = bundle.onnx(manifest.steps[0]).parent.relative_to(bundle.root)  # the weights, which it refers to by name
    names = [(beside / file).as_posix() for file in ("dense.onnx", "dense.body.onnx", "dense.labels.onnx")]
    parts = [gs.export_onnx(part, do_type_check=False) for part in label_part(whole)]
    for name, model in zip(names, [graph, *parts], strict=True):
        (folder / name).write_bytes(model.SerializeToString())
    paper, true = manifest.dense_macs
    [image] = [spec for spec in manifest.steps[0].inputs if spec.name == "image"]
    step = Step(
        name="dense",
        onnx=names[0],
        openvino=tuple(names[1:]),
        inputs=(image,),
        outputs=manifest.steps[-1].outputs,
        parameters=sum(math.prod(weights.dims) for weights in graph.graph.initializer if math.prod(weights.dims) > 1),
        macs=StepMacs(fixed=paper, fixed_pairs=true - paper),
    )
    changed = {
        "steps": (step,),
        "decisions": (),
        "thresholds": (),
        "capacities": (0, manifest.tokens),
        "taps": (),
        "prefix": manifest.prefix - manifest.cells,
        "merge_cells": 0,
        "plans": (),
        "source": None,
        "files": {name: FileEntry(sha256=sha256(folder / name), size=(folder / name).stat().st_size) for name in names},
    }
    return Bundle(folder, manifest.model_copy(update=changed))


def dense_graph(bundle: Bundle) -> onnx.ModelProto:
    """Image → logits and labels of `bundle`'s model without decisions: no heads, no gathers, all tokens everywhere.

    Its external data refer to the bundle's files by name: load it with those in the same folder.
    """
    return gs.export_onnx(_dense(bundle), do_type_check=False)


def _dense(bundle: Bundle) -> gs.Graph:
    parts = [gs.import_onnx(onnx.load(bundle.onnx(step), load_external_data=False)) for step in bundle.manifest.steps]
    tensors: dict[str, gs.Tensor] = {}

    def shared(tensor: gs.Tensor) -> gs.Tensor:
        """Steps were cut from one graph, so a name means the same tensor in all of them."""
        return tensor if tensor.is_empty() else tensors.setdefault(tensor.name, tensor)

    nodes = []
    for part in parts:
        for node in part.nodes:
            node.inputs = [shared(t) for t in node.inputs]
            node.outputs = [shared(t) for t in node.outputs]
            nodes.append(node)
    graph = gs.Graph(
        nodes, [tensors["image"]], [tensors["logits"], tensors["labels"]], "dense", opset=parts[0].opset, ir_version=10
    )
    for node in list(graph.nodes):
        if node.domain != OPERATOR_DOMAIN:
            continue
        if node.op == "TokenGather":  # all tokens stay: the block reads what the block before it wrote
            _replace(node.outputs[0], node.inputs[0])
        elif node.op == "TokenReconstruct":
            tokens, out = node.inputs[1], node.outputs[0]
            node.outputs.clear()
            bounds = [bundle.manifest.prefix - bundle.manifest.cells], [(1 << 63) - 1], [1]
            constants = [gs.Constant(f"{out.name}.{k}", np.array(b, np.int64)) for k, b in enumerate(bounds)]
            graph.nodes.append(gs.Node("Slice", f"{out.name}/patches", {}, [tokens, *constants], [out]))
    if REFINED in tensors:  # the dense model has no refinement
        _replace(tensors[REFINED], tensors["sequence"])
    for name, tensor in tensors.items():  # neither corrections nor merged tokens change anything where no token stops
        for other in (uncorrected(name), without_cells(name)):
            if other in tensors:
                _replace(tensor, tensors[other])
    for number in range(2, len(parts)):
        for name in ("cosine", "sine"):  # all tokens are where they are in block 1
            if (turned := context_name(name, number)) in tensors:
                _replace(tensors[turned], tensors[context_name(name, 1)])
        if (bias := tensors.get(context_name("bias", number))) is not None:
            for user in list(bias.outputs):  # additions to attention scores
                [scores] = [t for t in user.inputs if t is not bias]
                _replace(user.outputs[0], scores)
    graph.cleanup(remove_unused_graph_inputs=True).toposort()
    for tensor in graph.tensors().values():
        if (
            isinstance(tensor, gs.Variable)
            and tensor.shape is not None
            and tensor not in (*graph.inputs, *graph.outputs)
        ):
            tensor.shape = None  # `kept2` and the like are gone
    return graph


def _replace(old: gs.Variable, new: gs.Variable) -> None:
    for user in list(old.outputs):
        user.inputs = [new if t is old else t for t in user.inputs]
