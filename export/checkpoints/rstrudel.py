"""rstrudel/segmenter: a checkpoint with `variant.yml` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dovit.export.checkpoints.keys import Account, Rule, check_classes
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import image_size_for, resize_positions
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import HALF, IMAGENET, DecoderConfig, SegmenterLinearDecoder, SegmenterMaskDecoder
from dovit.runtime.errors import DovitError, UsageError

LAYER = r"(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)"
RULES: list[Rule] = [
    (r"encoder\.blocks\.(\d+)\." + LAYER, r"backbone.layers.\1.\2.\3"),
    (r"encoder\.norm\.(.+)", r"backbone.norm.\1"),
    (r"encoder\.patch_embed\.proj\.(.+)", r"backbone.patch_embed.\1"),
    (r"decoder\.head\.weight", r"decoder.classify.weight", lambda t: t[:, :, None, None]),
    (r"decoder\.head\.bias", r"decoder.classify.bias"),
    (r"decoder\.blocks\.(\d+)\." + LAYER, r"decoder.layers.\1.\2.\3"),
    (r"decoder\.cls_emb", r"decoder.class_embed", lambda t: t[0]),
    (r"decoder\.proj_dec\.(.+)", r"decoder.project.\1"),
    # used as x @ P there, as x @ Wᵀ in a Linear
    (r"decoder\.proj_patch", r"decoder.project_patches.weight", lambda t: t.T),
    (r"decoder\.proj_classes", r"decoder.project_classes.weight", lambda t: t.T),
    (r"decoder\.decoder_norm\.(.+)", r"decoder.norm.\1"),
    (r"decoder\.mask_norm\.(.+)", r"decoder.mask_norm.\1"),
]


def is_rstrudel(state: dict[str, Tensor]) -> bool:
    """Whether these are the keys of a rstrudel/segmenter model."""
    return "encoder.blocks.0.attn.qkv.weight" in state


def read_rstrudel(
    path: Path, state: dict[str, Tensor], options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    """The model and notes on keys that were left out; what the model depends on goes into `settings`."""
    variant = _variant(path.with_name("variant.yml"))
    net = variant["net_kwargs"]
    account = Account(path, dict(state))
    mask = account.has(r"decoder\.cls_emb")
    kind = "segmenter-mask" if mask else "segmenter-linear"
    if options.arch not in (None, kind):
        raise UsageError(f"--arch {options.arch}: the keys of {path} are those of {kind}")

    embed = account.take("encoder.pos_embed")[0].float()  # [P+N0, E]
    special = [account.take("encoder.cls_token")[0].float()]
    if account.has(r"encoder\.dist_token"):
        special.append(account.take("encoder.dist_token")[0].float())
    prefix = len(special)
    patch = int(net.get("patch_size", 16))
    size = image_size_for(len(embed) - prefix, patch, options.image_size)
    positions = resize_positions(embed[prefix:], (size[0] // patch, size[1] // patch), "bilinear")
    account.weights["backbone.pos_embed"] = positions
    account.weights["backbone.prefix"] = torch.cat(special) + embed[:prefix]
    account.rename(RULES)
    # the classifier of the image-level pre-training, and the patches' input projection of old files
    account.leave(r"encoder\.(head|head_dist|pre_logits)\..+", "the backbone's image classifier")

    dim = embed.shape[1]
    depth = account.count(r"encoder\.blocks\.(\d+)\..+")
    decoder: DecoderConfig
    if mask:
        classes, width = state["decoder.cls_emb"].shape[1:]
        decoder = SegmenterMaskDecoder(
            embed_dim=width, layers=account.count(r"decoder\.blocks\.(\d+)\..+"), heads=max(width // 64, 1),
            mlp_dim=state["decoder.blocks.0.mlp.fc1.weight"].shape[0], norm_eps=1e-5,
        )  # fmt: skip
    else:
        decoder, classes = SegmenterLinearDecoder(), state["decoder.head.weight"].shape[0]
    heads = options.new_heads(path, depth)
    normalization = variant.get("dataset_kwargs", {}).get("normalization", net.get("normalization", "vit"))
    statistics = IMAGENET if normalization == "deit" else HALF
    place = "variant.yml: normalization"
    mean = settings.choose("mean", option=("--mean", options.mean), file=(place, statistics["mean"]))
    std = settings.choose("std", option=("--std", options.std), file=(place, statistics["std"]))
    if settings.choose("BGR weights", option=("--bgr", options.bgr), assumed=("segmenter reads RGB", False)):
        account.bgr_to_rgb()
    norm_eps = settings.choose("norm_eps", option=("--norm-eps", options.norm_eps), assumed=("segmenter's code", 1e-5))
    attention_heads = settings.choose(
        "heads", option=("--heads", options.heads),
        file=("variant.yml: n_heads", int(net["n_heads"])) if net.get("n_heads") else None,
        assumed=("64 channels each", max(dim // 64, 1)),
    )  # fmt: skip
    mode = settings.choose("mode", option=("--mode", options.mode), assumed=("the image is resized", "whole"))
    window = variant.get("inference_kwargs", {})
    stride = int(window.get("window_stride", 0)) if window.get("window_size") == size[0] == size[1] else 0
    config = ModelConfig(
        image_size=size,
        classes=check_classes(classes, options.classes),
        backbone=BackboneConfig(
            embed_dim=dim, depth=depth, heads=attention_heads, patch=patch, prefix=prefix,
            mlp_dim=state["encoder.blocks.0.mlp.fc1.weight"].shape[0], norm_eps=norm_eps, final_norm=True,
        ),
        decoder=decoder,
        decisions=heads,
        thresholds=options.thresholds_for(len(heads)),
        slide_stride=settings.choose(
            "stride", option=("--stride", options.stride),
            file=("variant.yml: window_stride", (stride, stride)) if stride else None,
            assumed=("two thirds of the window", (size[0] * 2 // 3, size[1] * 2 // 3)),
        ),
        mode=mode,
        mean=mean,
        std=std,
    )  # fmt: skip
    return account.model(config, ("heads.",) if options.untrained else ()), account.notes()


def _variant(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
        if not isinstance(content["net_kwargs"], dict):
            raise TypeError("net_kwargs is no mapping")
        return dict(content)
    except FileNotFoundError:
        raise DovitError(
            f"{file}: missing; segmenter's checkpoints need the variant.yml that lies beside them (normalisation, heads, window)"
        ) from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DovitError(f"{file}: not segmenter's variant.yml ({reason}); copy it again") from None
