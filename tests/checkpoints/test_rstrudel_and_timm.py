"""rstrudel/segmenter's files against a plain forward pass written from its description, and timm's as initialisation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.errors import DovitError, UsageError

DIM, HEADS, DEPTH, CLASSES, SIDE = 128, 2, 3, 5, 64


def block_keys(name: str, count: int) -> dict[str, Tensor]:
    state = {}
    for k in range(count):
        shapes = {"norm1": (DIM,), "norm2": (DIM,), "attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
        shapes |= {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
        for part, shape in shapes.items():
            scale = 1.0 if "norm" in part else shape[-1] ** -0.5
            state[f"{name}.{k}.{part}.weight"] = torch.randn(shape) * scale
            state[f"{name}.{k}.{part}.bias"] = 0.1 * torch.randn(shape[0])
    return state


def norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def run_blocks(state: dict[str, Tensor], name: str, count: int, x: Tensor, eps: float) -> Tensor:
    for k in range(count):
        at = f"{name}.{k}"
        q, k_, v = linear(state, f"{at}.attn.qkv", norm(state, f"{at}.norm1", x, eps)).chunk(3, dim=-1)
        heads = [t.unflatten(-1, (HEADS, DIM // HEADS)).transpose(1, 2) for t in (q, k_, v)]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
        x = x + linear(state, f"{at}.attn.proj", (weights @ heads[2]).transpose(1, 2).flatten(2))
        x = x + linear(
            state, f"{at}.mlp.fc2", F.gelu(linear(state, f"{at}.mlp.fc1", norm(state, f"{at}.norm2", x, eps)))
        )
    return x


def encoder_state(distilled: bool, side: int = SIDE) -> dict[str, Tensor]:
    prefix, tokens = 1 + distilled, (side // 16) ** 2
    state = {
        "encoder.cls_token": torch.randn(1, 1, DIM),
        "encoder.pos_embed": torch.randn(1, prefix + tokens, DIM),
        "encoder.patch_embed.proj.weight": torch.randn(DIM, 3, 16, 16) / 28,
        "encoder.patch_embed.proj.bias": torch.randn(DIM),
        "encoder.norm.weight": torch.rand(DIM) + 0.5,
        "encoder.norm.bias": torch.randn(DIM),
        "encoder.head.weight": torch.randn(10, DIM),
        "encoder.head.bias": torch.randn(10),
        **block_keys("encoder.blocks", DEPTH),
    }
    return state | ({"encoder.dist_token": torch.randn(1, 1, DIM)} if distilled else {})


def encode(state: dict[str, Tensor], image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    pixels = ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    patches = F.conv2d(
        pixels, state["encoder.patch_embed.proj.weight"], state["encoder.patch_embed.proj.bias"], stride=16
    )
    special = [state["encoder.cls_token"]] + ([state["encoder.dist_token"]] if "encoder.dist_token" in state else [])
    x = torch.cat([*special, patches.flatten(2).transpose(1, 2)], dim=1) + state["encoder.pos_embed"]
    return norm(state, "encoder.norm", run_blocks(state, "encoder.blocks", DEPTH, x, 1e-5), 1e-5)[:, len(special) :]


def write(folder: Path, state: dict[str, Tensor], normalization: str) -> Path:
    torch.save({"model": state}, folder / "checkpoint.pth")
    net = {
        "patch_size": 16,
        "n_heads": HEADS,
        "d_model": DIM,
        "n_layers": DEPTH,
        "n_cls": CLASSES,
        "normalization": normalization,
    }
    variant = {"net_kwargs": net, "inference_kwargs": {"im_size": 64, "window_size": 64, "window_stride": 48}}
    variant["dataset_kwargs"] = {"normalization": normalization}
    (folder / "variant.yml").write_text(yaml.safe_dump(variant))
    return folder / "checkpoint.pth"


STATISTICS = {"vit": ([0.5] * 3, [0.5] * 3), "deit": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_segmenter_logits(decoder: str, distilled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    normalization = "deit" if distilled else "vit"
    state = encoder_state(distilled)
    if decoder == "linear":
        state |= {"decoder.head.weight": torch.randn(CLASSES, DIM), "decoder.head.bias": torch.randn(CLASSES)}
    else:
        state |= {
            **block_keys("decoder.blocks", 2),
            "decoder.cls_emb": torch.randn(1, CLASSES, DIM),
            "decoder.proj_dec.weight": torch.randn(DIM, DIM) / 11,
            "decoder.proj_dec.bias": torch.randn(DIM),
            "decoder.proj_patch": torch.randn(DIM, DIM) / 11,
            "decoder.proj_classes": torch.randn(DIM, DIM) / 11,
        }
        for name, size in (("decoder_norm", DIM), ("mask_norm", CLASSES)):
            state |= {f"decoder.{name}.{part}": torch.rand(size) for part in ("weight", "bias")}
    loaded = load_model(write(tmp_path, state, normalization), ReadOptions(dense=True))
    image = torch.randint(0, 256, (1, SIDE, SIDE, 3), dtype=torch.uint8)
    with torch.no_grad():
        x = encode(state, image, *map(torch.tensor, STATISTICS[normalization]))
        if decoder == "linear":
            expected = linear(state, "decoder.head", x)
        else:
            x = torch.cat([linear(state, "decoder.proj_dec", x), state["decoder.cls_emb"]], dim=1)
            x = norm(state, "decoder.decoder_norm", run_blocks(state, "decoder.blocks", 2, x, 1e-5), 1e-5)
            patches, classes = (
                x[:, :-CLASSES] @ state["decoder.proj_patch"],
                x[:, -CLASSES:] @ state["decoder.proj_classes"],
            )
            patches, classes = (t / t.norm(dim=-1, keepdim=True) for t in (patches, classes))
            expected = norm(state, "decoder.mask_norm", patches @ classes.transpose(1, 2), 1e-5)
        made = loaded.model(image).logits.flatten(2).transpose(1, 2)
    assert (made - expected).abs().max() < 1e-4 * expected.abs().max()
    assert loaded.model.config.slide_stride == (48, 48)
    assert loaded.model.config.backbone.prefix == 1 + distilled


def test_segmenter_without_its_variant(tmp_path: Path) -> None:
    path = write(tmp_path, encoder_state(False), "vit")
    (tmp_path / "variant.yml").write_text("- 1")
    with pytest.raises(DovitError, match=r"not segmenter's variant\.yml"):
        load_model(path)
    (tmp_path / "variant.yml").unlink()
    with pytest.raises(DovitError, match=r"need the variant\.yml"):
        load_model(path)


def variant_as_trained(**changes: object) -> dict[str, object]:
    """What segm/train.py writes for 64×64 crops and windows, with `changes` at dotted keys; a value of None takes a key out."""
    variant: dict[str, object] = {
        "world_batch_size": 8,
        "version": "normal",
        "resume": True,
        "amp": False,
        "log_dir": "seg_tiny",
        "dataset_kwargs": {
            "dataset": "ade20k",
            "image_size": 64,
            "crop_size": 64,
            "batch_size": 8,
            "normalization": "vit",
            "split": "train",
            "num_workers": 10,
        },
        "algorithm_kwargs": {"batch_size": 8, "start_epoch": 0, "num_epochs": 64, "eval_freq": 2},
        "optimizer_kwargs": {"opt": "sgd", "lr": 0.001},
        "net_kwargs": {
            "image_size": (64, 64),
            "patch_size": 16,
            "d_model": DIM,
            "n_heads": HEADS,
            "n_layers": DEPTH,
            "normalization": "vit",
            "distilled": False,
            "backbone": "vit_tiny_patch16_384",
            "dropout": 0.0,
            "drop_path_rate": 0.1,
            "decoder": {"name": "linear"},
            "n_cls": CLASSES,
        },
        "inference_kwargs": {"im_size": 64, "window_size": 64, "window_stride": 48},
    }
    for key, value in changes.items():
        at = variant
        *parents, last = key.split("__")
        for part in parents:
            at = at[part]  # type: ignore[assignment]
        at[last] = value
        if value is None:
            del at[last]
    return variant


def save_segmenter(folder: Path, variant: dict[str, object], side: int = SIDE) -> tuple[Path, dict[str, Tensor]]:
    """A Segmenter-Linear with its variant written by yaml.dump, as segm/train.py does: image_size is a Python tuple."""
    torch.manual_seed(1)
    state = encoder_state(False, side)
    state |= {"decoder.head.weight": torch.randn(CLASSES, DIM), "decoder.head.bias": torch.randn(CLASSES)}
    torch.save({"model": state}, folder / "checkpoint.pth")
    (folder / "variant.yml").write_text(yaml.dump(variant))
    return folder / "checkpoint.pth", state


def test_segmenter_variant_as_it_is_written(tmp_path: Path) -> None:
    path, _ = save_segmenter(tmp_path, variant_as_trained())
    assert "!!python/tuple" in (tmp_path / "variant.yml").read_text()
    loaded = load_model(path, ReadOptions(dense=True))
    config = loaded.model.config
    assert (config.image_size, config.slide_stride, config.mode) == ((64, 64), (48, 48), "slide")
    assert config.mean == config.std == (127.5, 127.5, 127.5) and config.backbone.heads == HEADS
    origins = {setting.name: setting.origin for setting in loaded.settings}
    assert {origins[name] for name in ("image_size", "mean", "std", "heads", "mode", "stride")} == {"file"}
    moved = tmp_path / "elsewhere.yml"
    (tmp_path / "variant.yml").rename(moved)
    assert load_model(path, ReadOptions(dense=True, config=moved)).model.config == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"net_kwargs__n_heads": 4}, {"heads": 4}),
        ({"dataset_kwargs__normalization": "deit"}, {"mean": (123.675, 116.28, 103.53)}),
        ({"dataset_kwargs": {}, "net_kwargs__normalization": "deit"}, {"std": (58.395, 57.12, 57.375)}),
        ({"inference_kwargs": {}}, {"mode": "whole", "image_size": (64, 64)}),
        ({"inference_kwargs": {}, "net_kwargs__image_size": (32, 128)}, {"image_size": (32, 128)}),
        ({"inference_kwargs__window_size": 96}, {"image_size": (96, 96), "stride": (48, 48)}),
        ({"inference_kwargs__window_stride": 16}, {"stride": (16, 16)}),
    ],
)
def test_segmenter_settings_are_honoured(changes: dict, expected: dict, tmp_path: Path) -> None:
    path, _ = save_segmenter(tmp_path, variant_as_trained(**changes))
    loaded = load_model(path, ReadOptions(dense=True))
    found = {setting.name: setting.value for setting in loaded.settings}
    assert {name: found[name] for name in expected} == expected
    config = loaded.model.config
    made = {"heads": config.backbone.heads, "mean": config.mean, "std": config.std, "mode": config.mode}
    made |= {"image_size": config.image_size, "stride": config.slide_stride}
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"net_kwargs__layer_scale": 1e-5}, r"net_kwargs\.layer_scale is a setting that segmenter does not have"),
        ({"temperature": 2}, "temperature is a setting that"),
        ({"inference_kwargs__flip": True}, r"inference_kwargs\.flip is a setting"),
        ({"net_kwargs__decoder": {"name": "linear", "scale": 2}}, r"net_kwargs\.decoder\.scale is a setting"),
        ({"net_kwargs__decoder": {"name": "deeplab_dec"}}, "deeplab_dec is not read"),
        (
            {"net_kwargs__decoder": {"name": "mask_transformer"}},
            r"decoder\.name is segmenter-mask, .* of segmenter-linear",
        ),
        ({"net_kwargs__backbone": "swin_tiny"}, "swin_tiny is no ViT or DeiT"),
        ({"net_kwargs__normalization": "clip"}, r"net_kwargs\.normalization: Input should be 'vit' or 'deit'"),
        ({"dataset_kwargs__normalization": "none"}, r"dataset_kwargs\.normalization: Input should be"),
        ({"net_kwargs__patch_size": 8}, r"patch_size is 8, and the weights are of 16"),
        ({"net_kwargs__d_model": 192}, r"d_model is 192, and the weights are of 128"),
        ({"net_kwargs__n_layers": 12}, r"n_layers is 12, and the weights are of 3"),
        ({"net_kwargs__n_cls": 150}, r"n_cls is 150, and the weights are of 5"),
        ({"net_kwargs__distilled": True}, r"distilled is True, and the weights are of False"),
        (
            {"net_kwargs__image_size": (96, 64)},
            r"says 96×64, which is 6×4 patches of 16, and the checkpoint has 16 positions",
        ),
        ({"net_kwargs__n_heads": 3}, "3 attention heads do not divide 128"),
        ({"inference_kwargs__window_size": 65}, "multiples of the patch size 16"),
    ],
)
def test_segmenter_settings_are_refused_by_name(changes: dict, sentence: str, tmp_path: Path) -> None:
    path, _ = save_segmenter(tmp_path, variant_as_trained(**changes))
    with pytest.raises((DovitError, UsageError), match=sentence):
        load_model(path, ReadOptions(dense=True))


def test_segmenter_windows_of_another_size(tmp_path: Path) -> None:
    """Trained on 32×128, run on windows of 96×96: positions go through segm.model.utils.resize_pos_embed's formula."""
    changes = {"net_kwargs__image_size": (32, 128), "inference_kwargs__window_size": 96}
    path, state = save_segmenter(tmp_path, variant_as_trained(**changes))
    model = load_model(path, ReadOptions(dense=True)).model
    grid = state["encoder.pos_embed"][:, 1:].reshape(1, 2, 8, DIM).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (6, 6), mode="bilinear").permute(0, 2, 3, 1).reshape(1, 36, DIM)
    state["encoder.pos_embed"] = torch.cat([state["encoder.pos_embed"][:, :1], grid], dim=1)
    image = torch.randint(0, 256, (1, 96, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = linear(state, "decoder.head", encode(state, image, *map(torch.tensor, STATISTICS["vit"])))
        made = model(image).logits.flatten(2).transpose(1, 2)
    assert (made - expected).abs().max() < 1e-4 * expected.abs().max()


def test_set_goes_over_the_variant(tmp_path: Path) -> None:
    path, _ = save_segmenter(tmp_path, variant_as_trained())
    options = ReadOptions(dense=True, changes=("inference_kwargs.window_stride=32", "net_kwargs.n_heads=4"))
    loaded = load_model(path, options)
    assert loaded.model.config.slide_stride == (32, 32) and loaded.model.config.backbone.heads == 4
    assert {s.name: s.origin for s in loaded.settings}["heads"] == "option"


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("arch", ["setr-naive", "setr-pup", "setr-mla", "segmenter-linear", "segmenter-mask"])
def test_timm_backbones_start_a_training(arch: str, nested: bool, distilled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {key.removeprefix("encoder."): tensor for key, tensor in encoder_state(distilled, 128).items()}
    torch.save({"model": state} if nested else state, tmp_path / "deit.pth")
    with pytest.raises(DovitError, match="without a decoder"):
        load_model(tmp_path / "deit.pth")
    with pytest.raises(UsageError, match="--arch and --classes"):
        load_model(tmp_path / "deit.pth", ReadOptions(untrained=True))
    options = ReadOptions(arch=arch, classes=CLASSES, image_size=(64, 96), decision_layers=(1, 2), untrained=True)
    if arch == "setr-mla":
        with pytest.raises(UsageError, match="outputs of four layers, and this backbone has 3"):
            load_model(tmp_path / "deit.pth", options)
        deeper = {key.replace("blocks.2.", "blocks.3."): tensor for key, tensor in state.items() if ".2." in key}
        torch.save({"model": state | deeper} if nested else state | deeper, tmp_path / "deit.pth")
    loaded = load_model(tmp_path / "deit.pth", options)
    model = loaded.model
    assert torch.equal(model.backbone.layers[2].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    square = state["pos_embed"][0, 1 + distilled :].T.reshape(1, DIM, 8, 8)
    resized = F.interpolate(square, (4, 6), mode="bicubic", align_corners=False, antialias=not nested)
    assert torch.allclose(model.backbone.pos_embed, resized[0].flatten(1).T)
    with torch.no_grad():
        output = model(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8), [0.2, 0.2])
    assert output.logits.isfinite().all() and "freshly initialised" in loaded.notes[-1]


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        (
            {"architecture": "vit", "model_args": {"act_layer": "quick_gelu"}},
            "act_layer is quick_gelu, and dovit's layers",
        ),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, "QuickGELU"),
        ({"architecture": "vit", "model_args": {"window": 7}}, "window is a setting whose effect dovit does not know"),
        ({"architecture": "vit", "model_args": {"depth": 12}}, "depth is 12, and the weights are of 3"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "is not three numbers"),
        ({"architecture": "vit", "model_args": {"img_size": [64, 128]}}, "says 64×128, which is 4×8 patches"),
        ("[", "not timm's config.json"),
    ],
)
def test_timm_settings_are_refused_by_name(about: dict | str, sentence: str, tmp_path: Path) -> None:
    state = {key.removeprefix("encoder."): tensor for key, tensor in encoder_state(False).items()}
    torch.save(state, tmp_path / "vit.pth")
    (tmp_path / "config.json").write_text(about if isinstance(about, str) else json.dumps(about))
    with pytest.raises(DovitError, match=sentence):
        load_model(tmp_path / "vit.pth", ReadOptions(arch="setr-naive", classes=CLASSES, untrained=True))


def test_a_config_of_another_model_beside_a_timm_file_is_not_used(tmp_path: Path) -> None:
    state = {key.removeprefix("encoder."): tensor for key, tensor in encoder_state(False).items()}
    torch.save(state, tmp_path / "vit.pth")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    loaded = load_model(tmp_path / "vit.pth", ReadOptions(arch="setr-naive", classes=CLASSES, untrained=True))
    assert "config.json is not timm's and was not used" in loaded.notes


def test_segmenters_windows_of_as_many_patches_as_another_image_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = encoder_state(distilled=False)
    state |= {"decoder.head.weight": torch.randn(CLASSES, DIM), "decoder.head.bias": torch.randn(CLASSES)}
    path = write(tmp_path, state, "vit")
    file = tmp_path / "variant.yml"
    variant = yaml.safe_load(file.read_text())
    variant["net_kwargs"]["image_size"] = [32, 128]
    file.write_text(yaml.safe_dump(variant))
    with pytest.raises(UsageError, match=r"--set 'net_kwargs\.image_size=\(64, 64\)' does; --image-size 64x64 resizes"):
        load_model(path, ReadOptions(dense=True))
    kept = load_model(path, ReadOptions(dense=True, changes=("net_kwargs.image_size=(64, 64)",))).model
    assert torch.equal(kept.backbone.pos_embed.flatten(), state["encoder.pos_embed"][0, 1:].flatten())
