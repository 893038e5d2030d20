"""Files that cannot be exported: the error names the format, and the command that it suggests works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import randomised, small_config
from safetensors.torch import save_file
from torch import nn

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.runtime.errors import DovitError


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())


def sentence(path: Path) -> str:
    with pytest.raises(DovitError) as error:
        load_model(path, ReadOptions(dense=True))
    return str(error.value)


def run_its_command(text: str, folder: Path) -> dict[str, torch.Tensor]:
    """The command that the sentence gives, as typed in the file's folder; what it saves."""
    found = re.search(r"python (-c '.+') saves its weights", text)
    assert found, text
    subprocess.run([sys.executable, *shlex.split(found[1])], cwd=folder, check=True, timeout=120)
    return torch.load(folder / "weights.pth", weights_only=True)["state_dict"]


def test_torchscript(tmp_path: Path) -> None:
    torch.jit.trace(small(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "model.pt"))
    text = sentence(tmp_path / "model.pt")
    assert "a TorchScript program, not a checkpoint" in text
    assert set(run_its_command(text, tmp_path)) == {"0.weight", "0.bias"}


def test_a_program_of_torch_export(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(small(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "model.pt2")
    text = sentence(tmp_path / "model.pt2")
    assert "a program of torch.export" in text
    assert set(run_its_command(text, tmp_path)) == {"0.weight", "0.bias"}


def test_a_whole_pickled_module(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pth")
    text = sentence(tmp_path / "model.pth")
    assert "a whole pickled model (torch.nn.modules." in text and "nothing of it was run" in text
    assert set(run_its_command(text, tmp_path)) == {"0.weight", "0.bias"}


def test_onnx(tmp_path: Path) -> None:
    import onnx

    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []), producer_name="pytorch"),
        tmp_path / "model.onnx",
    )
    assert "an ONNX model" in sentence(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").rename(tmp_path / "model.bin")
    assert "an ONNX model" in sentence(tmp_path / "model.bin")


def test_folders_and_bundles(tmp_path: Path) -> None:
    bundle, hugging = tmp_path / "engines", tmp_path / "vit"
    bundle.mkdir()
    hugging.mkdir()
    (bundle / "bundle.json").write_text("{}")
    assert f"a bundle, not a checkpoint: dovit-run and dovit-export take it as --engine {bundle}" in sentence(bundle)
    assert f"as --engine {bundle}" in sentence(bundle / "bundle.json")
    (hugging / "config.json").write_text('{"model_type": "vit"}')
    save_file({"x": torch.zeros(1)}, hugging / "model.safetensors")
    assert "its config.json says model_type vit" in sentence(hugging)
    (hugging / "config.json").unlink()
    assert f"a folder; --ckpt takes the checkpoint file in it, such as {hugging / 'model.safetensors'}" in sentence(
        hugging
    )


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("backbone.layers.1.0.attn.attn.in_proj_weight", "SegFormer"),
        ("backbone.stages.0.blocks.0.norm1.weight", "Swin"),
        ("backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table", "relative position biases"),
        ("backbone.layer1.0.conv1.weight", "convolutional"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP"),
        ("vit.encoder.layer.0.attention.output.dense.weight", "Hugging Face transformers"),
        ("blocks.0.mlp.w1.weight", "EVA"),
        ("backbone.blocks.0.attn.qkv.weight", "mmpretrain or timm"),
    ],
)
def test_other_models_by_their_keys(key: str, what: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {key: torch.zeros(2)}}, tmp_path / "model.pth")
    text = sentence(tmp_path / "model.pth")
    assert what in text and key in text and "dovit reads plain ViTs" in text


def test_a_valid_file_loads_without_a_hint(tmp_path: Path) -> None:
    save_model(randomised(small_config()), tmp_path / "model.pth")
    assert load_model(tmp_path / "model.pth").format == "dovit"
