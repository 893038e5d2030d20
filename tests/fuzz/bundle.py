"""Bundles: mutants of the manifest, of ONNX files and weights with corrected hashes, and of the folder's files.

A mutant that loads is run: outputs of a changed model must be checked as well as fields of a changed manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from bundles import make_bundle
from models import random_images, randomised, small_config
from traces import cheaper_exports

from dovit.runtime import load
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.cli.diagram import chain_dot, chain_svg
from dovit.runtime.draw import confidence_picture, keep_picture, overlay, whole_maps
from dovit.runtime.palettes import default_palette
from dovit.runtime.result import Result
from fuzz.common import STRANGE_NUMBERS, STRANGE_TEXTS, Driver, Finding, mutate_bytes, mutate_json, mutate_text

OPERATORS = (
    "Identity",
    "Tile",
    "Transpose",
    "Reshape",
    "Cast",
    "Abs",
    "ArgMax",
    "NonZero",
    "Shape",
    "TopK",
    "Expand",
    "Range",
    "Relu",
    "Loop",
    "ConstantOfShape",
    "Squeeze",
    "Gather",
    "Concat",
    "Resize",
    "Nothing",
)


def driver(folder: Path) -> Driver:
    """Bundles of a model with two decisions and of one with none."""
    kinds = []
    for name, layers in (("two", (1, 2)), ("none", ())):
        config = small_config(layers=layers, depth=4)
        with cheaper_exports():
            make_bundle(randomised(config), folder / name)
        kinds.append(folder / name)
    return _Bundles(kinds, random_images(config)[0].numpy())


class _Bundles:
    def __init__(self, seeds: list[Path], image: np.ndarray) -> None:
        self.seeds = seeds
        self.image = image
        self.ways: list[tuple[int, Callable[[Path, Random], None]]] = [
            (8, _manifest),
            (2, _manifest_bytes),
            (4, _onnx_bytes),
            (8, _onnx_model),
            (2, _weights),
            (1, _places),
        ]

    def attempt(self, random: Random, folder: Path) -> str:
        bundle = folder / "bundle"
        shutil.copytree(random.choice([self.seeds[0], *self.seeds]), bundle)
        way = random.choices([way for _, way in self.ways], [weight for weight, _ in self.ways])[0]
        way(bundle, random)
        session = load(bundle, threads=1)
        steps = session.manifest.steps
        chain_dot(steps), chain_svg(steps)
        image = (
            self.image if random.random() < 0.5 else self.image[: random.randrange(1, 64), : random.randrange(1, 96)]
        )
        options: dict[str, Any] = {"threshold": random.choice([None, 0.0, 0.5, 1.0])}
        options |= random.choice([{}, {"mode": "slide"}, {"schedule": "bucketed"}, {"return_logits": True}])
        _check(session(image, **options), image, session.manifest)
        return f"ran after {way.__name__}"


def _check(result: Result, image: np.ndarray, manifest: Manifest) -> None:
    classes = manifest.classes
    if result.labels.shape != image.shape[:2]:
        raise Finding(f"labels of {result.labels.shape} for an image of {image.shape}")
    if result.labels.min() < 0 or result.labels.max() >= classes:
        raise Finding(f"labels from {result.labels.min()} to {result.labels.max()} for {classes} classes")
    if any(not 0 <= kept <= result.tokens for kept in result.kept):
        raise Finding(f"{result.kept} kept of {result.tokens}")
    overlay(image, result.labels, manifest.palette or default_palette(classes))
    keeps, confidences = whole_maps(result, result.labels.shape, manifest.image_size)
    for keep, confidence in zip(keeps, confidences, strict=True):
        keep_picture(image, keep), confidence_picture(confidence, result.labels.shape)


def _manifest(bundle: Path, random: Random) -> None:
    file = bundle / "bundle.json"
    content = json.loads(file.read_text())
    try:
        if random.random() < 0.6:  # one part, or most changes would meet the long lists of steps
            part = random.choice(sorted(content))
            content[part] = mutate_json(content[part], random, 1)
        else:
            content = mutate_json(content, random)
        text = json.dumps(content, ensure_ascii=random.random() < 0.5)
    except RecursionError:  # deeper than Python can copy or write
        text = file.read_text().replace("[", "[" * 50_000, 1)
    file.write_bytes(text.encode(errors="surrogatepass"))


def _manifest_bytes(bundle: Path, random: Random) -> None:
    file = bundle / "bundle.json"
    data = file.read_bytes()
    file.write_bytes(
        random.choice(
            [
                lambda: mutate_bytes(data, random),
                lambda: mutate_text(data.decode(), random).encode(errors="surrogatepass"),
                lambda: b"\xef\xbb\xbf" + data,
                lambda: data.decode().encode("utf-16"),
                lambda: data + b"\0",
            ]
        )()
    )


def _one(bundle: Path, random: Random, suffix: str) -> Path:
    return random.choice(sorted((bundle / "onnx").glob(f"*.{suffix}")))


def _rehash(bundle: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    manifest = json.loads((bundle / "bundle.json").read_text())
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest["files"][str(file.relative_to(bundle))] = entry
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def _onnx_bytes(bundle: Path, random: Random) -> None:
    file = _one(bundle, random, "onnx")
    _rehash(bundle, file, mutate_bytes(file.read_bytes(), random))


def _weights(bundle: Path, random: Random) -> None:
    file = _one(bundle, random, "weights")
    data = file.read_bytes()
    special = np.float32(random.choice([np.nan, np.inf, -np.inf, 3e38])).tobytes()
    count = len(data) // 4
    _rehash(bundle, file, random.choice([mutate_bytes(data, random), special * count, b"", data[:-4], data * 2]))


def _onnx_model(bundle: Path, random: Random) -> None:
    """A valid ONNX file with another content."""
    file = _one(bundle, random, "onnx")
    model = onnx.load(file, load_external_data=False)
    for _ in range(random.choice([1, 1, 2, 3])):
        random.choice([_change_tensor, _change_value, _change_node, _change_node, _wrap_output, _change_external])(
            model, random
        )
    _rehash(bundle, file, model.SerializeToString())


def _change_tensor(model: onnx.ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    kind = random.randrange(4)
    if kind == 0:
        tensor.data_type = random.randrange(24)
    elif kind == 1 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice([0, 1, -1, 2, 7, 10**6, 2**31, 2**62])
    elif kind == 2 and tensor.raw_data:
        tensor.raw_data = mutate_bytes(tensor.raw_data, random)
    else:
        tensor.dims.append(random.choice([0, 1, 2]))


def _change_external(model: onnx.ModelProto, random: Random) -> None:
    external = [tensor for tensor in model.graph.initializer if tensor.external_data]
    if external:
        entry = random.choice(random.choice(external).external_data)
        if entry.key == "location":
            entry.value = random.choice(
                ["../bundle.json", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "bundle.json", "", "a\0b", "."]
            )
        else:
            entry.value = random.choice(["0", "-1", "1", "x", "", str(2**63), str(2**62), "4096", "1e3", " 4"])


def _change_value(model: onnx.ModelProto, random: Random) -> None:
    """Change the declared type or shape of an input or output, or its name."""
    value = random.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    shape = value.type.tensor_type.shape
    kind = random.randrange(5)
    if kind == 0:
        value.type.tensor_type.elem_type = random.randrange(24)
    elif kind == 1 and shape.dim:
        random.choice(shape.dim).dim_value = random.choice([0, 1, 2, 7, 10**6, 2**62])
    elif kind == 2 and shape.dim:
        random.choice(shape.dim).dim_param = random.choice(["batch", "kept1", "other"])
    elif kind == 3:
        value.name = random.choice(["", "labels", "logits", "other", mutate_text(value.name, random)[:100]]).replace(
            "\ud800", "?"
        )
    else:
        values = random.choice([model.graph.input, model.graph.output])
        if values:
            values.remove(random.choice(values))


def _change_node(model: onnx.ModelProto, random: Random) -> None:
    nodes = random.choice([model.graph, *model.functions]).node
    node = random.choice(nodes)
    kind = random.randrange(6)
    if kind == 0:
        node.op_type = random.choice(OPERATORS)
    elif kind == 1 and node.input:
        others = [name for other in nodes for name in (*other.input, *other.output)]
        node.input[random.randrange(len(node.input))] = random.choice(others)
    elif kind == 2 and node.attribute:
        attribute = random.choice(node.attribute)
        number = random.choice([n for n in STRANGE_NUMBERS if isinstance(n, int) and abs(n) < 2**63])
        if attribute.ints:
            attribute.ints[random.randrange(len(attribute.ints))] = number
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = number
        else:
            node.attribute.remove(attribute)
    elif kind == 3:
        nodes.remove(node)
    elif kind == 4:
        node.domain = random.choice(["", "dovit", "com.microsoft", "nowhere"])
    else:
        nodes.append(node)


def _wrap_output(model: onnx.ModelProto, random: Random) -> None:
    """Change an output's size, type or values."""
    output = random.choice(model.graph.output)
    rank = len(output.type.tensor_type.shape.dim)
    inner = f"{output.name}.inner"
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name == output.name:
                node.output[number] = inner
    kind = random.randrange(6)
    make = onnx.helper.make_node
    if kind == 0:
        times = onnx.numpy_helper.from_array(
            np.array([random.choice([1, 1, 2, 3, 0]) for _ in range(rank)]), f"{inner}.n"
        )
        model.graph.initializer.append(times)
        nodes = [make("Tile", [inner, times.name], [output.name])]
    elif kind == 1:
        nodes = [make("Cast", [inner], [output.name], to=random.choice([1, 2, 3, 6, 7, 9, 10, 11, 16]))]
    elif kind == 2:
        nodes = [make("Unsqueeze", [inner, f"{inner}.a"], [output.name])]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), f"{inner}.a"))
    elif kind == 3:
        constant = onnx.numpy_helper.from_array(np.array(random.choice([-1, 1, 5, 255, 10**6])), f"{inner}.c")
        element = output.type.tensor_type.elem_type
        model.graph.initializer.append(constant)
        nodes = [
            make("Cast", [constant.name], [f"{inner}.d"], to=element),
            make(random.choice(["Add", "Mul", "Max"]), [inner, f"{inner}.d"], [output.name]),
        ]
    elif kind == 4:
        nodes = [make("Neg", [inner], [output.name])]
    else:
        nodes = [make("Transpose", [inner], [output.name])]
    model.graph.node.extend(nodes)
    if random.random() < 0.7:
        output.type.tensor_type.ClearField("shape")
    if random.random() < 0.5:
        output.type.tensor_type.ClearField("elem_type")


def _places(bundle: Path, random: Random) -> None:
    """Remove, replace or move files."""
    file = random.choice([bundle / "bundle.json", _one(bundle, random, "onnx"), _one(bundle, random, "weights")])
    kind = random.randrange(7)
    content = file.read_bytes()
    file.unlink()
    if kind == 1:
        file.mkdir()
    elif kind == 2:
        os.mkfifo(file)
    elif kind == 3:
        file.symlink_to(file.name)
    elif kind == 4:
        file.symlink_to("/dev/zero")
    elif kind == 5:
        (bundle.parent / "elsewhere").write_bytes(content)
        file.symlink_to(bundle.parent / "elsewhere")
    elif kind == 6:
        manifest = json.loads((bundle / "bundle.json").read_text()) if file.name != "bundle.json" else {}
        if manifest:
            name = random.choice([*STRANGE_TEXTS, "onnx/../onnx/x", "./x", "bundle.json", "onnx"])
            manifest["files"][name] = manifest["files"].pop(str(file.relative_to(bundle)))
            (bundle / "bundle.json").write_text(json.dumps(manifest))
