"""DINOv2's checkpoints against the real transformers: features, positions, heads, and facebookresearch's key layout."""

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
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Backbone,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.errors import DovitError, UsageError

pytestmark = pytest.mark.oracle
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 70,
    "patch_size": 14,
}
TRAINING = ReadOptions(arch="segmenter-linear", classes=3, untrained=True, decision_layers=(2, 3))


def small(kind: str = "plain", **changes: Any) -> Any:
    """A model of transformers: plain, gated (SwiGLU) or with registers."""
    settings = SMALL | {"use_swiglu_ffn": kind == "gated"} | changes
    torch.manual_seed(0)
    if kind == "registers":
        model: Any = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**settings, num_register_tokens=3))
    else:
        model = Dinov2Model(Dinov2Config(**settings))
    randomise(model)
    return model


def expected(model: Any, image: Tensor, prefix: int, patch: int = 14) -> Any:
    grid = image.shape[1] // patch, image.shape[2] // patch
    with torch.no_grad():
        return as_map(model(pixel_values(image)).last_hidden_state[:, prefix:], grid)


@pytest.mark.parametrize("size", [(70, 70), (56, 98), (140, 28), (70, 84), (14, 70)])
@pytest.mark.parametrize("kind", ["plain", "gated", "registers"])
def test_features_are_those_of_transformers(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    theirs = small(kind)
    loaded = load_model(save(theirs, tmp_path), ReadOptions(**vars(TRAINING) | {"image_size": size}))
    assert loaded.format == "DINOv2" and loaded.model.config.backbone.prefix == (4 if kind == "registers" else 1)
    image = images(size)
    assert (
        difference(features(loaded.model, image), expected(theirs, image, loaded.model.config.backbone.prefix)) < 1e-5
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": False},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-2},
        {"num_attention_heads": 4},
        {"patch_size": 7},
        {"mlp_ratio": 3},
        {"use_mask_token": False},
    ],
    ids=str,
)
def test_every_setting_is_honoured(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = small(**changes)
    model = load_model(save(theirs, tmp_path), TRAINING).model
    image = images((70, 70))
    assert difference(features(model, image), expected(theirs, image, 1, model.config.backbone.patch)) < 1e-5


def test_shards_old_files_and_other_classes(tmp_path: Path) -> None:
    theirs, image = small(), images((70, 70))
    save(theirs, tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    save(theirs, tmp_path / "old")
    torch.save(load_file(tmp_path / "old" / "model.safetensors"), tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "model.safetensors").unlink()
    backbone = Dinov2Backbone(Dinov2Config(**SMALL, out_features=["stage4"]))
    backbone.load_state_dict(theirs.state_dict())
    save(backbone, tmp_path / "backbone")
    classifier = Dinov2ForImageClassification(Dinov2Config(**SMALL, num_labels=5))
    classifier.dinov2.load_state_dict(theirs.state_dict())
    save(classifier, tmp_path / "classifier")
    want = expected(theirs, image, 1)
    for name in ("sharded", "old", "backbone", "classifier"):
        assert difference(features(load_model(tmp_path / name, TRAINING).model, image), want) < 1e-5
    weights = tmp_path / "backbone" / "model.safetensors"  # the file in the folder, config.json beside it
    assert difference(features(load_model(weights, TRAINING).model, image), want) < 1e-5


def test_settings_come_from_the_files(tmp_path: Path) -> None:
    theirs = small()
    save(theirs, tmp_path)
    loaded = load_model(tmp_path, TRAINING)
    said = {setting.name: (setting.origin, setting.place) for setting in loaded.settings}
    assert said["mean"] == ("file", "preprocessor_config.json: image_mean")
    assert said["num_attention_heads"] == ("file", "configuration")
    assert said["image_size"] == ("file", "preprocessor_config.json: size")
    assert loaded.model.config.mean == pytest.approx([123.675, 116.28, 103.53])
    changed = load_model(tmp_path, ReadOptions(**vars(TRAINING) | {"changes": ("layer_norm_eps=0.001",), "heads": 1}))
    assert changed.model.config.backbone.norm_eps == 0.001 and changed.model.config.backbone.heads == 1


def rewritten(folder: Path, name: str, **changes: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "config.json",
            {"quantization_config": {"bits": 4}},
            "quantization_config = {'bits': 4}: a setting that dovit does not",
        ),
        ("config.json", {"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu': dovit's layers have"),
        ("config.json", {"hidden_act": {"a": 1}}, "hidden_act = {'a': 1}: dovit's layers have"),
        ("config.json", {"hidden_size": 128}, "hidden_size = 128: the weights have 64"),
        ("config.json", {"num_hidden_layers": 5}, "num_hidden_layers = 5: the weights have 4"),
        ("config.json", {"mlp_ratio": 4}, "mlp_ratio = 4: the weights have 128"),
        ("config.json", {"patch_size": 16}, "patch_size = 16: the weights are of patches of 14"),
        ("config.json", {"num_attention_heads": 3}, "3 attention heads do not divide 64"),
        ("config.json", {"num_channels": 4}, "num_channels = 4"),
        ("preprocessor_config.json", {"do_pad": True}, "do_pad"),
        ("preprocessor_config.json", {"do_flip_channel_order": True}, "do_flip_channel_order is a setting"),
        ("preprocessor_config.json", {"image_std": [1, 0]}, "image_std is [1, 0], not three numbers"),
        ("preprocessor_config.json", {"size": {"height": 71, "width": 70}}, "71x70"),
        ("preprocessor_config.json", {"size": {"height": 700_000, "width": 70}}, "too large"),
        ("preprocessor_config.json", {"size": {"height": 28_000, "width": 28_000}}, "too large"),
    ],
)
def test_what_cannot_be_honoured_is_refused(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(small(), tmp_path)
    rewritten(tmp_path, name, **changes)
    with pytest.raises((DovitError, UsageError)) as error:
        load_model(tmp_path, TRAINING)
    assert words in str(error.value), str(error.value)


def test_without_any_image_size(tmp_path: Path) -> None:
    save(small(), tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    rewritten(tmp_path, "config.json", image_size=None)
    with pytest.raises(UsageError, match="nothing says its image_size: say --image-size"):
        load_model(tmp_path, TRAINING)
    assert load_model(tmp_path, ReadOptions(**vars(TRAINING) | {"image_size": (70, 70)})).model.config.grid == (5, 5)


def test_normalisation_by_name(tmp_path: Path) -> None:
    save(small(), tmp_path)
    rewritten(tmp_path, "preprocessor_config.json", do_normalize=False)
    config = load_model(tmp_path, TRAINING).model.config
    assert config.mean == (0, 0, 0) and config.std == pytest.approx((255, 255, 255))
    rewritten(tmp_path, "preprocessor_config.json", do_normalize=True, do_rescale=False)
    config = load_model(tmp_path, TRAINING).model.config
    assert config.mean == pytest.approx((0.485, 0.456, 0.406))


def test_broken_folders_say_what_is_wrong(tmp_path: Path) -> None:
    save(small(), tmp_path / "a", max_shard_size="100KB")
    next((tmp_path / "a").glob("model-00001*.safetensors")).unlink()
    with pytest.raises(DovitError, match="shards are missing"):
        load_model(tmp_path / "a", TRAINING)
    index = tmp_path / "a" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    with pytest.raises(DovitError, match="names no files beside it"):
        load_model(tmp_path / "a", TRAINING)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(DovitError, match=r"an adapter .* merge_and_unload"):
        load_model(tmp_path / "lora", TRAINING)
    (tmp_path / "lora" / "adapter_config.json").unlink()
    with pytest.raises(DovitError, match=r"holds no model.safetensors or pytorch_model.bin"):
        load_model(tmp_path / "lora", TRAINING)
    save(small(), tmp_path / "b")
    state = load_file(tmp_path / "b" / "model.safetensors")
    save_file(state | {"encoder.layer.0.surprise": torch.zeros(3)}, tmp_path / "b" / "model.safetensors")
    with pytest.raises(DovitError, match=r"1 unknown keys: encoder\.layer\.0\.surprise"):
        load_model(tmp_path / "b", TRAINING)
    with pytest.raises(DovitError, match="a backbone of DINOv2 without a decoder"):
        load_model(save(small(), tmp_path / "c"), ReadOptions(dense=True))


# --- facebookresearch/dinov2's own layout ---

NAMES = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12])\.(.+)", r"blocks.\1.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.(fc[12])\.(.+)", r"blocks.\1.mlp.\2.\3"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.+)", r"blocks.\1.mlp.w12.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.+)", r"blocks.\1.mlp.w3.\2"),
    (r"layernorm\.(.+)", r"norm.\1"),
]


def official(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder` under the names of facebookresearch/dinov2."""
    state = load_file(folder / "model.safetensors")
    made: dict[str, Tensor] = {}
    for key in state:
        joined = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(.+)", key)
        if joined:
            parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            made[f"blocks.{joined[1]}.attn.qkv.{joined[2]}"] = torch.cat(parts)
        for pattern, name in NAMES:
            match = re.fullmatch(pattern, key)
            if match:
                made[match.expand(name)] = state[key]
    return made


@pytest.mark.parametrize("kind", ["plain", "gated", "registers"])
def test_official_files_are_the_same_model(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    save(theirs, tmp_path)
    state = official(tmp_path)
    torch.save(state, tmp_path / "backbone.pth")
    chunked = {re.sub(r"^blocks\.(\d+)\.", r"backbone.blocks.0.\1.", key): value for key, value in state.items()}
    chunked = {key if key.startswith("backbone.") else f"backbone.{key}": value for key, value in chunked.items()}
    torch.save({"teacher": chunked | {"dino_head.mlp.0.weight": torch.zeros(2)}}, tmp_path / "teacher.pth")
    image = images((70, 70))
    want = expected(theirs, image, 4 if kind == "registers" else 1)
    options = ReadOptions(**vars(TRAINING) | {"heads": 2})
    for name in ("backbone.pth", "teacher.pth"):
        loaded = load_model(tmp_path / name, options)
        assert loaded.format == "DINOv2"
        assert difference(features(loaded.model, image), want) < 1e-5


@pytest.mark.parametrize("size", [(56, 98), (84, 70), (140, 140)])
@pytest.mark.parametrize("registers", [False, True])
def test_official_positions_are_resized_as_in_their_code(
    registers: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    """interpolate_pos_encoding of facebookresearch/dinov2 with the hub's arguments: the scale is (h + 0.1) / 5 without
    registers, and the size with antialiasing with them."""
    save(small("registers" if registers else "plain"), tmp_path)
    state = official(tmp_path)
    torch.save(state, tmp_path / "backbone.pth")
    options = ReadOptions(**vars(TRAINING) | {"heads": 2, "image_size": size})
    made = load_model(tmp_path / "backbone.pth", options).model.backbone.pos_embed
    h, w = size[0] // 14, size[1] // 14
    square = state["pos_embed"][:, 1:].reshape(1, 5, 5, 64).permute(0, 3, 1, 2)
    how: dict[str, Any] = (
        {"size": (h, w), "antialias": True} if registers else {"scale_factor": ((h + 0.1) / 5, (w + 0.1) / 5)}
    )
    resized = nn.functional.interpolate(square, mode="bicubic", **how)
    assert made is not None and resized.shape[2:] == (h, w)
    torch.testing.assert_close(made.detach(), resized[0].flatten(1).T, rtol=0, atol=1e-6)


# --- heads ---


class LinearHead(nn.Module):
    """DINOv2's BNHead on `count` layers, in evaluation mode, as their code computes it."""

    def __init__(self, count: int, classes: int = 5) -> None:
        super().__init__()
        self.bn, self.conv_seg = nn.BatchNorm2d(64 * count), nn.Conv2d(64 * count, classes, 1)
        randomise(self, seed=7)
        with torch.no_grad():
            assert self.bn.running_mean is not None and self.bn.running_var is not None
            self.bn.running_mean.copy_(0.3 * torch.randn(64 * count))
            self.bn.running_var.copy_(0.5 + torch.rand(64 * count))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.conv_seg(self.bn(torch.cat(maps, dim=1)))


@pytest.mark.parametrize("count", [1, 4])
def test_linear_heads(count: int, tmp_path: Path) -> None:
    theirs, head = small(num_hidden_layers=6), LinearHead(count)
    save(theirs, tmp_path / "folder")
    torch.save(official(tmp_path / "folder"), tmp_path / "backbone.pth")
    keys = {f"decode_head.{key}": value for key, value in head.state_dict().items()}
    torch.save({"meta": {"CLASSES": ["a"]}, "state_dict": keys}, tmp_path / "head.pth")
    torch.save({"state_dict": official(tmp_path / "folder") | keys}, tmp_path / "whole.pth")
    size = (56, 84)
    image = images((70, 70))
    with torch.no_grad():
        outputs = theirs(pixel_values(image), output_hidden_states=True).hidden_states
        maps = [theirs.layernorm(x)[:, 1:].transpose(1, 2).unflatten(2, (5, 5)) for x in outputs[-count:]]
        want = head(maps).numpy()
    options = ReadOptions(dense=True, heads=2, head=tmp_path / "head.pth")
    for name, given in (
        ("backbone.pth", options),
        ("folder", ReadOptions(dense=True, head=tmp_path / "head.pth")),
        ("whole.pth", ReadOptions(dense=True, heads=2)),
    ):
        model = load_model(tmp_path / name, given).model
        assert model.config.decoder.kind == "segmenter-linear" and model.config.classes == 5
        with torch.no_grad():
            assert difference(model(image).logits.numpy(), want) < 1e-4
    assert load_model(
        tmp_path / "backbone.pth", ReadOptions(**vars(options) | {"image_size": size})
    ).model.config.grid == (4, 6)
    if count == 4:
        assert model.config.decoder.taps == (3, 4, 5, 6)
        other = load_model(
            tmp_path / "whole.pth", ReadOptions(dense=True, heads=2, changes=("head.layers=(1,2,3,6)",))
        ).model
        assert other.config.decoder.taps == (1, 2, 3, 6)
        with pytest.raises(UsageError, match="give 4 layers"):
            load_model(tmp_path / "whole.pth", ReadOptions(dense=True, heads=2, changes=("head.layers=(1,2,3)",)))


def test_the_segmenter_of_hugging_face_users(tmp_path: Path) -> None:
    """Dinov2ForSemanticSegmentation as transformers' notebooks define it: a 1×1 convolution on the patches, class names."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Conv2d(64, 3, 1)

    classifier = Classifier()
    theirs = Dinov2ForImageClassification(Dinov2Config(**SMALL, id2label={0: "road", 1: "sky", 2: "tree"}))
    theirs.classifier = classifier
    randomise(theirs)
    save(theirs, tmp_path)
    model = load_model(tmp_path, ReadOptions(dense=True)).model
    assert model.config.class_names == ("road", "sky", "tree")
    image = images((70, 70))
    with torch.no_grad():
        tokens = theirs.dinov2(pixel_values(image)).last_hidden_state[:, 1:]
        want = classifier.classifier(tokens.transpose(1, 2).unflatten(2, (5, 5))).numpy()
        assert difference(model(image).logits.numpy(), want) < 1e-4


def test_a_configuration_written_out_in_full(tmp_path: Path) -> None:
    """Every setting that transformers has is known: one that a newer version adds is refused, which shows here first."""
    theirs = small("registers")
    save(theirs, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    assert len(json.loads((tmp_path / "config.json").read_text())) > 25
    image = images((70, 70))
    assert difference(features(load_model(tmp_path, TRAINING).model, image), expected(theirs, image, 4)) < 1e-5
