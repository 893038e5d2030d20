"""The installed library: its symbols, its dependencies, and the plugins in TensorRT-RTX's registry."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import make_bundle
from installed import require
from models import randomised, small_config

from dovit import plugins
from dovit.export.graph.functions import Merging, token_pass_functions
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, PLUGIN_ATTRIBUTES

C_API = {
    "confidence",
    "decide",
    "error_string",
    "gather",
    "gather_scratch_bytes",
    "labels",
    "normalise",
    "plugin_signature",
    "reconstruct",
    "resize",
    "resize_taps",
    "resized_labels",
    "slots",
}

pytestmark = pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")


@pytest.fixture(scope="module")
def library() -> Path:
    path = plugins.library()
    assert path is not None
    return path


def symbols(library: Path, *options: str) -> set[str]:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    listed = subprocess.run(["nm", "-D", *options, str(library)], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in listed.splitlines()}


def test_nothing_but_its_interfaces_is_visible(library: Path) -> None:
    expected = {f"dovit_{name}" for name in C_API} | {"getCreators", "setLoggerFinder"}
    assert symbols(library, "--defined-only") == expected


def test_needs_neither_tensorrt_nor_a_cuda_library(library: Path) -> None:
    """TensorRT calls the plugins, the CUDA driver is opened when the first kernel is launched."""
    wanted = symbols(library, "--undefined-only")
    assert wanted and not {name for name in wanted if "nvinfer" in name or "TRT" in name or name.startswith("cu")}
    needed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in needed and "cuda" not in needed and "nvinfer" not in needed


def test_loads_without_a_gpu() -> None:
    assert plugins.load() is plugins.load()
    assert plugins.left_out() is None


def signatures() -> Iterator[tuple[str, list[str], list[str], list[str]]]:
    """(name, attributes, inputs, outputs) of every plugin, as the library states them."""
    signature = plugins.load().dovit_plugin_signature
    signature.restype = ctypes.c_char_p
    number = 0
    while (text := signature(number)) is not None:
        head, outputs = text.decode().removesuffix(")").split(") => (")
        name, inputs = head.split(" (")
        name, _, attributes = name.partition(" <")
        yield name, attributes.removesuffix(">").split(", "), inputs.split(", "), outputs.split(", ")
        number += 1


@pytest.mark.parametrize("merging", ["class token", "none"])
def test_plugins_have_the_names_of_the_onnx_functions(merging: Merging) -> None:
    """Of nodes, attributes, inputs and outputs, in their order. A plugin may have more, behind those and optional."""
    functions = {function.name: function for function in token_pass_functions(merging)}
    stated = list(signatures())
    assert {name for name, *_ in stated} == set(functions)
    for name, attributes, inputs, outputs in stated:
        function = functions[name]
        assert inputs == list(function.input)
        assert outputs[: len(function.output)] == list(function.output)
        assert set(function.attribute) <= set(attributes)


@pytest.fixture(scope="module")
def registry(library: Path) -> Iterator[Any]:
    trt = require("tensorrt_rtx")
    registry = trt.get_plugin_registry()
    registry.load_library(str(library))
    yield registry


def nodes(bundle: Path) -> dict[str, onnx.NodeProto]:
    """A token-pass node of every kind from an exported bundle's files."""
    found = {}
    for path in sorted((bundle / "onnx").glob("*.onnx")):
        for node in onnx.load(path, load_external_data=False).graph.node:
            if node.domain == OPERATOR_DOMAIN:
                found.setdefault(node.op_type, node)
    return found


@pytest.mark.parametrize("head", ["conv", "conv-unmerged", "conv-cells"])
def test_registry_makes_each_plugin_from_an_exported_node(registry: Any, head: str, tmp_path: Path) -> None:
    """As TensorRT's parser does: by name and domain, with those of the node's attributes that are the creator's fields."""
    import tensorrt_rtx as trt

    make_bundle(randomised(small_config(head=head)), tmp_path)
    exported = nodes(tmp_path)
    assert set(exported) == {"TokenDecide", "TokenGather", "TokenReconstruct"}
    outputs = {name: outputs for name, _, _, outputs in signatures()}
    for name, node in exported.items():
        creator = registry.get_creator(name, "1", OPERATOR_DOMAIN)
        assert creator is not None and (creator.name, creator.plugin_namespace) == (name, OPERATOR_DOMAIN)
        known = {field.name for field in creator.field_names}
        values = {a.name: np.array([a.i], np.int32) for a in node.attribute if a.name in known}
        assert set(values) == {a.name for a in node.attribute} - set(PLUGIN_ATTRIBUTES)
        assert PLUGIN_ATTRIBUTES.items() <= {a.name: a.s.decode() for a in node.attribute}.items()
        fields = [trt.PluginField(key, value, trt.PluginFieldType.INT32) for key, value in values.items()]
        plugin = creator.create_plugin(node.name, trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
        assert plugin is not None
        build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
        assert build.num_outputs == len(outputs[name]) >= len(node.output)
        core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
        assert (core.plugin_name, core.plugin_version, core.plugin_namespace) == (name, "1", OPERATOR_DOMAIN)


def test_registry_gets_nothing_for_wrong_fields(registry: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import tensorrt_rtx as trt

    creator = registry.get_creator("TokenGather", "1", OPERATOR_DOMAIN)
    assert creator.create_plugin("gather1", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD) is None
    assert "TokenGather gather1: field prefix is missing" in capfd.readouterr().err
