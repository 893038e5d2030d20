"""DINOv3's checkpoints against the real transformers, and facebookresearch's key layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from installed import require
from torch import Tensor, nn

require("transformers")
from oracle.huggingface import as_map, difference, features, images, pixel_values, randomise, save
from safetensors.torch import load_file
from transformers import DINOv3ViTBackbone, DINOv3ViTConfig, DINOv3ViTModel

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.errors import DovitError, UsageError

pytestmark = pytest.mark.oracle
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 80,
    "patch_size": 16,
    "num_register_tokens": 3,
}
TRAINING = ReadOptions(arch="segmenter-linear", classes=3, untrained=True, decision_layers=(2, 3))


def small(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**SMALL | changes))
    randomise(model)
    return model


def expected(model: Any, image: Tensor, patch: int = 16) -> Any:
    grid = image.shape[1] // patch, image.shape[2] // patch
    with torch.no_grad():
        return as_map(model(pixel_values(image)).last_hidden_state[:, -grid[0] * grid[1] :], grid)


@pytest.mark.parametrize("size", [(80, 80), (64, 112), (160, 32), (16, 80), (16, 16)])
@pytest.mark.parametrize("gated", [False, True])
def test_features_are_those_of_transformers(gated: bool, size: tuple[int, int], tmp_path: Path) -> None:
    theirs = small(use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")
    loaded = load_model(save(theirs, tmp_path), ReadOptions(**vars(TRAINING) | {"image_size": size}))
    assert loaded.format == "DINOv3" and loaded.model.config.backbone.prefix == 4
    image = images(size)
    assert difference(features(loaded.model, image), expected(theirs, image)) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 10.0},
        {"num_register_tokens": 0},
        {"num_register_tokens": 7},
        {"key_bias": True, "query_bias": False},
        {"value_bias": False, "proj_bias": False},
        {"query_bias": False, "value_bias": False},
        {"mlp_bias": False},
        {"mlp_bias": False, "use_gated_mlp": True},
        {"layer_norm_eps": 1e-2},
        {"num_attention_heads": 4},
        {"patch_size": 8},
        {"hidden_act": "gelu_new"},
        {"use_gated_mlp": True, "hidden_act": "gelu"},
    ],
    ids=str,
)
def test_every_setting_is_honoured(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = small(**changes)
    model = load_model(save(theirs, tmp_path), TRAINING).model
    image = images((80, 80))
    assert difference(features(model, image), expected(theirs, image, model.config.backbone.patch)) < 1e-5


def test_other_classes_and_the_names_of_transformers_5(tmp_path: Path) -> None:
    theirs, image = small(), images((80, 80))
    backbone = DINOv3ViTBackbone(DINOv3ViTConfig(**SMALL, out_features=["stage4"]))
    backbone.load_state_dict(theirs.state_dict())
    save(backbone, tmp_path / "backbone")
    save(theirs, tmp_path / "new", save_original_format=False)
    save(theirs, tmp_path / "sharded", max_shard_size="100KB")
    assert any(key.startswith("model.layer.") for key in load_file(tmp_path / "new" / "model.safetensors"))
    for name in ("backbone", "new", "sharded"):
        assert difference(features(load_model(tmp_path / name, TRAINING).model, image), expected(theirs, image)) < 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": {"rope_type": "linear"}}, "a setting that dovit does not know"),
        ({"rope_theta": -1}, "rope_theta = -1: not a number above 1"),
        ({"use_gated_mlp": True}, "use_gated_mlp = True: the weights say otherwise"),
        ({"key_bias": True}, "key_bias = True: the weights have False"),
        ({"num_register_tokens": 4}, "num_register_tokens = 4: the weights have 3"),
        ({"intermediate_size": 128}, "intermediate_size = 128: the weights have 96"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(small(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(DovitError) as error:
        load_model(tmp_path, TRAINING)
    assert words in str(error.value), str(error.value)


def test_a_configuration_written_out_in_full(tmp_path: Path) -> None:
    """Every setting that transformers has is known: one that a newer version adds is refused, which shows here first."""
    theirs = small()
    save(theirs, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    assert len(json.loads((tmp_path / "config.json").read_text())) > 25
    image = images((80, 80))
    assert difference(features(load_model(tmp_path, TRAINING).model, image), expected(theirs, image)) < 1e-5


# --- facebookresearch/dinov3's own layout ---

NAMES = [
    (r"embeddings\.(cls_token|mask_token)", r"\1"),
    (r"embeddings\.register_tokens", "storage_tokens"),
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    (r"layer\.(\d+)\.(norm[12])\.(.+)", r"blocks.\1.\2.\3"),
    (r"layer\.(\d+)\.attention\.o_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"norm\.(.+)", r"norm.\1"),
]
MLP = {False: {"up_proj": "fc1", "down_proj": "fc2"}, True: {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}}


def official(model: Any, folder: Path) -> dict[str, Tensor]:
    """The weights in `folder` under the names of facebookresearch/dinov3, with its mask over the key's bias."""
    config, state = model.config, load_file(folder / "model.safetensors")
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        layer = re.match(r"layer\.(\d+)\.", key)
        if key.endswith("q_proj.weight"):
            parts = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[f"blocks.{layer[1]}.attn.qkv.weight"] = torch.cat(parts)
            # the file holds a bias for keys as well, which the mask sets to zero
            biases = [
                state.get(key.replace("q_proj.weight", f"{part}_proj.bias"), torch.full((64,), 0.7)) for part in "qkv"
            ]
            made[f"blocks.{layer[1]}.attn.qkv.bias"] = torch.cat(biases)
            mask = torch.ones(192)
            mask[64:128] = 0
            made[f"blocks.{layer[1]}.attn.qkv.bias_mask"] = mask
        mlp = re.fullmatch(r"layer\.(\d+)\.mlp\.(\w+)\.(.+)", key)
        if mlp:
            made[f"blocks.{mlp[1]}.mlp.{MLP[config.use_gated_mlp][mlp[2]]}.{mlp[3]}"] = value
        for pattern, name in NAMES:
            match = re.fullmatch(pattern, key)
            if match:
                made[match.expand(name)] = value
    head = config.hidden_size // config.num_attention_heads
    made["rope_embed.periods"] = config.rope_theta ** (2 * torch.arange(head // 4) / (head // 2))
    return made


@pytest.mark.parametrize("gated", [False, True])
def test_official_files_are_the_same_model(gated: bool, tmp_path: Path) -> None:
    theirs = small(use_gated_mlp=gated, hidden_act="silu" if gated else "gelu", rope_theta=30.0)
    save(theirs, tmp_path / "folder")
    state = official(theirs, tmp_path / "folder")
    state |= {f"local_cls_norm.{name}": torch.ones(64) for name in ("weight", "bias")}  # of ViT-7B
    torch.save(state, tmp_path / "backbone.pth")
    for size in ((80, 80), (64, 112)):
        loaded = load_model(tmp_path / "backbone.pth", ReadOptions(**vars(TRAINING) | {"image_size": size}))
        assert loaded.format == "DINOv3" and loaded.model.config.backbone.heads == 2
        image = images(size)
        assert difference(features(loaded.model, image), expected(theirs, image)) < 1e-5
    with pytest.raises(DovitError, match="2 attention heads of 32"):
        load_model(tmp_path / "backbone.pth", ReadOptions(**vars(TRAINING) | {"heads": 4}))
    bad = state | {"blocks.1.attn.qkv.bias_mask": torch.full((192,), torch.nan)}
    torch.save(bad, tmp_path / "bad.pth")
    with pytest.raises(DovitError, match="mask of a key bias"):
        load_model(tmp_path / "bad.pth", TRAINING)


@pytest.mark.parametrize("count", [1, 4])
def test_linear_heads(count: int, tmp_path: Path) -> None:
    """LinearHead of facebookresearch/dinov3 as its training saves it."""
    theirs = small(num_hidden_layers=8)
    save(theirs, tmp_path / "folder")
    torch.save(official(theirs, tmp_path / "folder"), tmp_path / "backbone.pth")
    norm, conv = nn.BatchNorm2d(64 * count), nn.Conv2d(64 * count, 5, 1)
    head = nn.ModuleDict({"batchnorm_layer": norm, "conv": conv})
    randomise(head, seed=3)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(0.3 * torch.randn(64 * count))
    norm.running_var.copy_(0.5 + torch.rand(64 * count))
    keys = {f"module.segmentation_model.1.{key}": value for key, value in head.state_dict().items()}
    torch.save({"model": keys, "optimizer": {"state": {}}, "iteration": 3}, tmp_path / "head.pth")
    image = images((80, 80))
    layers = (8,) if count == 1 else (2, 4, 6, 8)  # FOUR_EVEN_INTERVALS
    with torch.no_grad():
        outputs = theirs(pixel_values(image), output_hidden_states=True).hidden_states
        maps = [theirs.norm(outputs[k])[:, 4:].transpose(1, 2).unflatten(2, (5, 5)) for k in layers]
        want = conv(norm(torch.cat(maps, dim=1))).numpy()
    for name in ("backbone.pth", "folder"):
        model = load_model(
            tmp_path / name, ReadOptions(dense=True, head=tmp_path / "head.pth", image_size=(80, 80))
        ).model
        assert model.config.decoder.taps == (() if count == 1 else layers)
        with torch.no_grad():
            assert difference(model(image).logits.numpy(), want) < 1e-4
    with pytest.raises(UsageError, match="--classes 4: the checkpoint has 5"):
        load_model(tmp_path / "folder", ReadOptions(dense=True, head=tmp_path / "head.pth", classes=4))
