"""timm's backbones against the real timm: features on its own resampled positions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from oracle import timm_vit
from safetensors.torch import save_file
from torch import nn

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.errors import DovitError

DIM, HEADS, DEPTH, CLASSES, SIDE = 128, 2, 3, 5, 64


def save_timm(folder: Path, about: dict | None = None, **arguments: object) -> nn.Module:
    """A small timm model with random weights, as timm's save_for_hf writes it."""
    vit, _ = timm_vit.load()
    torch.manual_seed(2)
    sizes = {"img_size": 64, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 10}
    model = vit(**(sizes | arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    save_file(model.state_dict(), folder / "model.safetensors")
    if about is not None:
        (folder / "config.json").write_text(json.dumps(about))
    return model


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (32, 128)])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"no_embed_class": True},
        {"init_values": 0.5, "qkv_bias": False},  # LayerScale
        {"init_values": 0.5, "reg_tokens": 4, "no_embed_class": True},  # as timm's DINOv2 with registers
        {"reg_tokens": 2},
    ],
    ids=str,
)
def test_features_equal_timm(arguments: dict, size: tuple[int, int], tmp_path: Path) -> None:
    """The real timm's forward_features, on its own resampled positions where the size is another."""
    if reason := timm_vit.available():
        pytest.skip(reason)
    about = {
        "architecture": "vit_tiny",
        "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "input_size": [3, 64, 64]},
        "model_args": {key: value for key, value in arguments.items() if key != "fc_norm"},
    }
    special = 0 if "class_token" in arguments else 1 + arguments.get("reg_tokens", 0)
    theirs = save_timm(tmp_path, about, **arguments)
    options = ReadOptions(arch="segmenter-linear", classes=CLASSES, image_size=size, untrained=True)
    loaded = load_model(tmp_path / "model.safetensors", options)
    config = loaded.model.config
    assert config.mean == pytest.approx((127.5, 102, 76.5)) and config.std == pytest.approx((51, 76.5, 63.75))
    vit, resample = timm_vit.load()
    if size != (64, 64):
        state = theirs.state_dict()
        prefix = 0 if "no_embed_class" in arguments else special
        state["pos_embed"] = resample(
            state["pos_embed"], [size[0] // 16, size[1] // 16], [4, 4], num_prefix_tokens=prefix
        )
        theirs = vit(img_size=size, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=10, **arguments).eval()
        theirs.load_state_dict(state)
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    pixels = (image.float() / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.25])
    prefix = config.backbone.prefix
    assert prefix == special
    with torch.no_grad():
        expected = theirs.forward_features(pixels.permute(0, 3, 1, 2))[:, prefix:]
        tokens = loaded.model.embed(image)
        for layer in loaded.model.backbone.layers:
            tokens = layer(tokens)
        made = loaded.model.backbone.norm(tokens)[:, prefix:]
    assert (made - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"qk_norm": True}, "normalises queries and keys"),
        ({"pre_norm": True}, "a norm before its first layer"),
        ({"global_pool": "avg", "fc_norm": True}, "no final norm for its tokens"),
    ],
)
def test_other_timm_models_are_refused_by_name(arguments: dict, sentence: str, tmp_path: Path) -> None:
    if reason := timm_vit.available():
        pytest.skip(reason)
    save_timm(tmp_path, **arguments)
    with pytest.raises(DovitError, match=sentence):
        load_model(
            tmp_path / "model.safetensors", ReadOptions(arch="segmenter-linear", classes=CLASSES, untrained=True)
        )


@pytest.mark.oracle
def test_deit_iii_is_timms_layer_scale_under_other_names(tmp_path: Path) -> None:
    """facebookresearch/deit's models_v2: gamma_1 and gamma_2, and a class token without a position."""
    if reason := timm_vit.available():
        pytest.skip(reason)
    theirs = save_timm(tmp_path, init_values=0.5, no_embed_class=True)
    names = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    state = {}
    for key, value in theirs.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        state[key] = value
    torch.save({"model": state}, tmp_path / "deit3.pth")
    options = ReadOptions(arch="segmenter-linear", classes=CLASSES, untrained=True)
    renamed = load_model(tmp_path / "deit3.pth", options).model.backbone.state_dict()
    original = load_model(tmp_path / "model.safetensors", options).model.backbone.state_dict()
    assert renamed.keys() == original.keys()
    assert all(torch.equal(renamed[key], original[key]) for key in original)
