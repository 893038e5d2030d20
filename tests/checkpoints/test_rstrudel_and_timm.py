"""rstrudel/segmenter's files against a plain forward pass written from its description, and timm's as initialisation."""

from __future__ import annotations

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
    loaded = load_model(tmp_path / "deit.pth", options)
    model = loaded.model
    assert torch.equal(model.backbone.layers[2].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    square = state["pos_embed"][0, 1 + distilled :].T.reshape(1, DIM, 8, 8)
    resized = F.interpolate(square, (4, 6), mode="bicubic", align_corners=False, antialias=True)
    assert torch.allclose(model.backbone.pos_embed, resized[0].flatten(1).T)
    with torch.no_grad():
        output = model(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8), [0.2, 0.2])
    assert output.logits.isfinite().all() and "freshly initialised" in loaded.notes[-1]
