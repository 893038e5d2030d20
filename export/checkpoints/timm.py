"""timm's and DeiT's image classifiers: a backbone to start a training from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dovit.export.checkpoints.keys import Account, Rule
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import image_size_for, resize_positions
from dovit.export.checkpoints.rstrudel import LAYER
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import (
    HALF,
    IMAGENET,
    DecoderConfig,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.runtime.errors import DovitError, UsageError

RULES: list[Rule] = [
    (r"blocks\.(\d+)\." + LAYER, r"backbone.layers.\1.\2.\3"),
    (r"patch_embed\.proj\.(.+)", r"backbone.patch_embed.\1"),
]


def is_timm(state: dict[str, Tensor]) -> bool:
    """Whether these are the keys of a timm or DeiT vision transformer."""
    return "blocks.0.attn.qkv.weight" in state and "patch_embed.proj.weight" in state


def read_timm(
    path: Path, state: dict[str, Tensor], options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    """The model with a freshly initialised decoder and heads, and notes. DovitError unless `untrained` is allowed."""
    if not options.untrained:
        raise DovitError(
            f"{path}: a timm or DeiT backbone without a decoder, which can start a training (dovit-train --ckpt) but has "
            f"nothing to segment with; export the segmenter that is trained from it"
        )
    if options.config is not None or options.changes:
        raise UsageError(f"{path}: timm's and DeiT's files have no configuration that --config or --set could change")
    if options.arch is None or options.classes is None:
        raise UsageError(f"{path}: a backbone alone: say --arch and --classes for the segmenter to build on it")
    account = Account(path, dict(state))
    special = [account.take(name)[0].float() for name in ("cls_token", "dist_token") if name in state]
    embed = account.take("pos_embed")[0].float()
    # some timm models have no positions for the special tokens (`no_embed_class`): those rows are then missing
    rows = len(embed) - len(special)
    patch = state["patch_embed.proj.weight"].shape[-1]
    size = image_size_for(rows, patch, options.image_size)
    grid = size[0] // patch, size[1] // patch
    account.weights["backbone.pos_embed"] = resize_positions(embed[len(special) :], grid, "bicubic", antialias=True)
    keep = 0 if options.arch == "setr-mla" else len(special)
    account.weights["backbone.prefix"] = (torch.cat(special) + embed[: len(special)])[:keep]
    account.rename(RULES)
    segmenter = options.arch.startswith("segmenter")
    if segmenter:
        account.rename([(r"norm\.(.+)", r"backbone.norm.\1")])
    else:
        account.leave(r"norm\..+", "SETR's decoders have norms of their own")
    account.leave(r"(head|head_dist|pre_logits|fc_norm)\..+", "the image classifier")
    depth, dim = account.count(r"blocks\.(\d+)\..+"), embed.shape[1]
    heads = options.new_heads(path, depth)
    attention_heads = settings.choose(
        "heads", option=("--heads", options.heads), assumed=("64 channels each", max(dim // 64, 1))
    )
    norm_eps = settings.choose("norm_eps", option=("--norm-eps", options.norm_eps), assumed=("timm's code", 1e-6))
    backbone = BackboneConfig(
        embed_dim=dim, depth=depth, heads=attention_heads, patch=patch, prefix=keep, norm_eps=norm_eps,
        mlp_dim=state["blocks.0.mlp.fc1.weight"].shape[0], final_norm=segmenter,
    )  # fmt: skip
    statistics, place = HALF if segmenter else IMAGENET, f"as {options.arch} is trained"
    mean = settings.choose("mean", option=("--mean", options.mean), assumed=(place, statistics["mean"]))
    std = settings.choose("std", option=("--std", options.std), assumed=(place, statistics["std"]))
    if settings.choose("BGR weights", option=("--bgr", options.bgr), assumed=("timm reads RGB", False)):
        account.bgr_to_rgb()
    config = ModelConfig(
        image_size=size, classes=options.classes, backbone=backbone, decoder=_decoder(options.arch, backbone),
        decisions=heads, thresholds=options.thresholds_for(len(heads)), mean=mean, std=std,
        slide_stride=options.stride, mode=options.mode or "whole",
    )  # fmt: skip
    notes = [*account.notes(), "decoder and decision heads are freshly initialised"]
    return account.model(config, ("heads.", "decoder.")), notes


def _decoder(arch: str, backbone: BackboneConfig) -> DecoderConfig:
    dim, depth = backbone.embed_dim, backbone.depth
    choices: dict[str, DecoderConfig] = {
        "setr-naive": SetrUpDecoder(kind="setr-naive"),
        "setr-pup": SetrUpDecoder(kind="setr-pup", num_convs=4, kernel=3, up_scale=2),
        "setr-mla": SetrMlaDecoder(taps=tuple(depth * k // 4 for k in (1, 2, 3, 4))),
        "segmenter-linear": SegmenterLinearDecoder(),
        "segmenter-mask": SegmenterMaskDecoder(embed_dim=dim, heads=max(dim // 64, 1), mlp_dim=4 * dim),
    }
    if arch not in choices:
        raise UsageError(f"unknown architecture {arch!r}: choose one of {', '.join(choices)}")
    return choices[arch]
