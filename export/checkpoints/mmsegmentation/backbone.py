"""mmsegmentation's VisionTransformer: its settings, positions and the layers whose outputs it returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dovit.export.checkpoints.keys import Account
from dovit.export.checkpoints.mmsegmentation.layers import activation, layer_norm_eps
from dovit.export.checkpoints.mmsegmentation.rules import fill_biases
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import Interpolation, check_order, resize_positions, trained_grid
from dovit.export.checkpoints.section import Section
from dovit.export.model import BackboneConfig
from dovit.runtime.errors import DovitError, UsageError

TRAINING_KEYS = (
    "drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "norm_eval",
    "with_cp",
    "frozen_exclude",
    "pretrained",
    "init_cfg",
    "mlp_ratio",
    "patch_bias",  # the weights tell
)
INTERPOLATIONS = ("bilinear", "bicubic")  # mmsegmentation fails with the others


@dataclass(frozen=True)
class Read:
    """The whole backbone, and what the decoder and the heads can take: the layers (from 1; 0 is the embedding) of its outputs,
    None where nothing says them."""

    config: BackboneConfig
    features: tuple[int, ...] | None
    interpolation: str
    grid: tuple[int, int]  # of the positions in the file


def read_backbone(account: Account, section: Section, options: ReadOptions, decoder: str) -> Read:
    """The settings of the backbone. `decoder` is the kind of the decoder, for what no configuration says."""
    if section.type("VisionTransformer") != "VisionTransformer":
        raise section.refusal("type", "dovit reads mmsegmentation's VisionTransformer")
    kernel = account.tensor("backbone.patch_embed.projection.weight")  # [E, 3, p, p]
    rows = account.tensor("backbone.pos_embed").shape[1] - 1
    dim, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
    if channels != 3:
        raise DovitError(f"{account.path}: in_channels = {channels}: dovit's images have 3 channels")
    depth = account.count(r"backbone\.layers\.(\d+)\..+")
    for key, found in (("in_channels", 3), ("embed_dims", dim), ("num_layers", depth), ("patch_size", patch)):
        section.same(key, found)
    section.only("num_fcs", 2, default=2, reason="dovit's layers have an MLP of two linear layers")
    section.only("output_cls_token", False, default=False, reason="dovit's decoders take the patches alone")
    section.only("patch_pad", "corner", "same", 0, default="corner", reason="dovit's patches are not padded")
    for key, present, default in (
        ("patch_norm", account.has(r"backbone\.patch_embed\.norm\..+"), False),
        ("pre_norm", account.has(r"backbone\.ln_pre\..+"), False),
        ("final_norm", account.has(r"backbone\.ln1\..+"), False),
        ("qkv_bias", account.has(r"backbone\.layers\.0\.attn\.attn\.in_proj_bias"), True),
    ):
        section.same(key, present, default)
    section.ignore(*TRAINING_KEYS)

    segmenter = decoder.startswith("segmenter")
    section.flag("with_cls_token", True)
    class_token = section.choose(
        "with_cls_token", True, assumed=("as in mmsegmentation's configurations", decoder != "setr-mla")
    )
    config = BackboneConfig(
        embed_dim=dim,
        depth=depth,
        heads=_heads(section, options, dim),
        mlp_dim=account.rows("backbone.layers.0.ffn.layers.0.0.weight"),
        patch=patch,
        prefix=1 if class_token else 0,
        norm_eps=layer_norm_eps(
            section,
            "norm_cfg",
            1e-5,
            assumed=("as in mmsegmentation's configurations", 1e-6),
            option=("--norm-eps", options.norm_eps),
        ),
        patch_norm=account.has(r"backbone\.patch_embed\.norm\..+"),
        pre_norm=account.has(r"backbone\.ln_pre\..+"),
        final_norm=account.has(r"backbone\.ln1\..+"),
        activation=activation(section, "GELU"),
    )
    interpolation = section.choose(
        "interpolate_mode",
        "bicubic",
        assumed=("as in mmsegmentation's configurations", "bicubic" if segmenter else "bilinear"),
    )
    if interpolation not in INTERPOLATIONS:
        raise section.refusal("interpolate_mode", f"dovit resizes positions {', '.join(INTERPOLATIONS)}")
    features = _features(account, section, depth, decoder)
    stated = section.pair("img_size", 224)
    stated = stated if "img_size" in section or section.known else None
    grid = trained_grid(rows, patch, options.image_size, stated)
    section.finish()
    return Read(config, features, interpolation, grid)


def _heads(section: Section, options: ReadOptions, dim: int) -> int:
    assumed = ("64 channels each", dim // 64) if dim % 64 == 0 else None
    heads = section.choose(
        "num_heads",
        12,
        assumed=assumed,
        option=("--heads", options.heads),
        remedy="say --heads, or give its configuration with --config",
    )
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise section.refusal("num_heads", "not a whole number from 1 up")
    return heads


def _features(account: Account, section: Section, depth: int, decoder: str) -> tuple[int, ...] | None:
    """mmsegmentation returns outputs in the order of the layers, whatever the order of out_indices; each once."""
    indices = section.get("out_indices", -1)
    origin = section.flag("out_origin", False)
    if "out_indices" in section or section.known:
        listed = [depth - 1 if indices == -1 else indices] if isinstance(indices, int) else indices
        if not isinstance(listed, list | tuple) or not all(isinstance(k, int) for k in listed):
            raise section.refusal("out_indices", "not a list of layers")
        layers = [k + 1 for k in range(depth) if k in listed]
        said = (section.place("out_indices"), layers)
    elif decoder == "setr-mla":
        levels = account.count(r"neck\.norm\.(\d+)\..+")
        layers, said = [depth * k // levels for k in range(1, levels + 1)], None
    elif decoder.startswith("setr") and depth == 24:
        layers, said = [10, 15, 20, 24], None
    else:
        return None
    if origin:
        layers.insert(0, 0)
    section.settings.choose(
        "layers handed on",
        option=said if section.is_option("out_indices") else None,
        file=said,
        assumed=("as in mmsegmentation's configurations", layers),
    )
    return tuple(layers)


def place_tokens(account: Account, read: Read, image_size: tuple[int, int], *, asked: bool) -> None:
    """Positions for `image_size`, which the user may have `asked` for, class token and the biases that a file may leave out,
    among the model's weights."""
    patch, dim = read.config.patch, read.config.embed_dim
    if any(side % patch for side in image_size):
        raise UsageError(
            f"{account.path}: images of {image_size[0]}×{image_size[1]} are no multiples of the patch size {patch}: "
            f"say --image-size"
        )
    embed = account.take("backbone.pos_embed")[0].float()  # [1+N0, E]
    class_token = account.take("backbone.cls_token")[0].float()  # [1, E]
    grid = image_size[0] // patch, image_size[1] // patch
    if not asked:
        check_order(read.grid, grid, patch, str(account.path), "model.backbone.img_size")
    account.weights["backbone.pos_embed"] = resize_positions(
        embed[1:], grid, Interpolation(read.interpolation), trained=read.grid
    )
    prefix = read.config.prefix
    account.weights["backbone.prefix"] = (class_token + embed[:1])[:prefix]
    if not prefix:
        account.unused["with_cls_token is off: the class token goes before the first layer"] = ["backbone.cls_token"]
    if not account.has(r"backbone\.patch_embed\.projection\.bias"):  # mmsegmentation 1.2
        account.weights["backbone.patch_embed.bias"] = torch.zeros(dim)
    fill_biases(account, "backbone", "backbone", read.config.depth, dim)
