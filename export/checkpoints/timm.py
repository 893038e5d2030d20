"""timm's and DeiT's image classifiers: a backbone to start a training from."""

from __future__ import annotations

import math

import torch

from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.foreign import unlike_vit
from dovit.export.checkpoints.keys import Account, Rule
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import Interpolation, image_size_for, resize_positions, trained_grid
from dovit.export.checkpoints.rstrudel import LAYER
from dovit.export.checkpoints.segmenters import NEW_DECODER, new_decoder
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.timm_config import TimmConfig, read_timm_config
from dovit.export.checkpoints.vit_layers import complete_layers
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import HALF, IMAGENET
from dovit.runtime.errors import DovitError, UsageError

RULES: list[Rule] = [
    (r"blocks\.(\d+)\." + LAYER, r"backbone.layers.\1.\2.\3"),
    (r"blocks\.(\d+)\.ls([12])\.gamma", r"backbone.layers.\1.scale\2"),
    (r"blocks\.(\d+)\.gamma_([12])", r"backbone.layers.\1.scale\2"),  # DeiT-III
    (r"patch_embed\.proj\.(.+)", r"backbone.patch_embed.\1"),
]
# timm's models whose heads are not 64 channels wide: so400m, huge, giant, gigantic
HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
TIMM_POSITIONS = Interpolation("bicubic", antialias=True)  # timm.layers.resample_abs_pos_embed
DEIT_POSITIONS = Interpolation("bicubic")  # facebookresearch/deit, where it loads a file for fine-tuning


def is_timm(checkpoint: Checkpoint) -> bool:
    """Whether these are the keys of a timm or DeiT vision transformer."""
    return "blocks.0.attn.qkv.weight" in checkpoint.state and "patch_embed.proj.weight" in checkpoint.state


def read_timm(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """The model with a freshly initialised decoder and heads, and notes. DovitError unless `untrained` is allowed, and where
    the layers are no plain ViT's."""
    path, state = checkpoint.path, checkpoint.state
    unlike = unlike_vit(state)
    if unlike:
        raise DovitError(f"{path}: {unlike}; such a backbone cannot start a training here")
    if not options.untrained:
        raise DovitError(
            f"{path}: a timm or DeiT backbone without a decoder, which can start a training (dovit-train --ckpt) but has "
            f"nothing to segment with; export the segmenter that is trained from it"
        )
    if options.changes:
        raise UsageError(
            f"{path}: timm's files have no configuration that --set could change; --config takes a config.json"
        )
    arch, classes = options.segmenter_for(path)
    timm_config = read_timm_config(
        options.config or checkpoint.beside("config.json"), required=options.config is not None
    )
    account = Account(path, dict(state))
    special = [account.take(name)[0].float() for name in ("cls_token", "dist_token", "reg_token") if name in state]
    embed = account.take("pos_embed")[0].float()
    tokens = torch.cat(special) if special else embed.new_zeros(0, embed.shape[1])  # [P, E]
    depth, dim = account.count(r"blocks\.(\d+)\..+"), embed.shape[1]
    patch = state["patch_embed.proj.weight"].shape[-1]
    timm_config.check(depth=depth, embed_dim=dim, patch_size=patch, class_token="cls_token" in state)

    no_embed_class = _is_no_embed_class(len(embed), len(tokens), timm_config)
    rows = embed if no_embed_class else embed[len(tokens) :]
    stated = timm_config.size_of(len(rows), patch)
    size = image_size_for(len(rows), patch, options.image_size, stated)
    trained = trained_grid(len(rows), patch, options.image_size, stated)
    # DeiT's own files nest their weights under `model`; timm's are flat, or under `state_dict`
    is_deit = isinstance(checkpoint.content.get("model"), dict)
    how, code = (DEIT_POSITIONS, "DeiT's code") if is_deit else (TIMM_POSITIONS, "timm's code")
    settings.choose("resizing of positions", assumed=(code, str(how)))
    grid = size[0] // patch, size[1] // patch
    account.weights["backbone.pos_embed"] = resize_positions(rows, grid, how, trained=trained)
    keep = 0 if arch == "setr-mla" and "reg_token" not in state else len(tokens)
    account.weights["backbone.prefix"] = (tokens if no_embed_class else tokens + embed[: len(tokens)])[:keep]
    account.rename(RULES)
    complete_layers(account, depth)
    segmenter = arch.startswith("segmenter")
    if segmenter and not account.has(r"norm\..+"):
        raise DovitError(
            f"{path}: has no final norm for its tokens (timm's fc_norm comes after pooling), which --arch {arch} needs: "
            f"start one of SETR's from it"
        )
    if segmenter:
        account.rename([(r"norm\.(.+)", r"backbone.norm.\1")])
    else:
        account.leave(r"norm\..+", "SETR's decoders have norms of their own")
    account.leave(r"(head|head_dist|pre_logits|fc_norm|attn_pool)\..+", "the image classifier")
    heads = options.new_heads(path, depth)
    attention_heads = settings.choose(
        "heads",
        option=("--heads", options.heads),
        file=timm_config.setting("num_heads"),
        assumed=("timm's model of this width", HEADS.get(dim, max(dim // 64, 1))),
    )
    norm_eps = settings.choose("norm_eps", option=("--norm-eps", options.norm_eps), assumed=("timm's code", 1e-6))
    backbone = BackboneConfig(
        embed_dim=dim,
        depth=depth,
        heads=attention_heads,
        patch=patch,
        prefix=keep,
        norm_eps=norm_eps,
        mlp_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
        final_norm=segmenter,
    )
    statistics, place = HALF if segmenter else IMAGENET, f"as {arch} is trained"
    mean = settings.choose(
        "mean", option=("--mean", options.mean), file=timm_config.mean, assumed=(place, statistics["mean"])
    )
    std = settings.choose(
        "std", option=("--std", options.std), file=timm_config.std, assumed=(place, statistics["std"])
    )
    if settings.choose("BGR weights", option=("--bgr", options.bgr), assumed=("timm reads RGB", False)):
        account.bgr_to_rgb()
    config = ModelConfig(
        image_size=size,
        classes=classes,
        backbone=backbone,
        decoder=new_decoder(arch, backbone, options.decoder_layers),
        decisions=heads,
        thresholds=options.thresholds_for(len(heads)),
        mean=mean,
        std=std,
        slide_stride=options.stride,
        mode=options.mode or "whole",
    )
    notes = [*account.notes(), *timm_config.notes, NEW_DECODER]
    return account.model(config, ("heads.", "decoder.")), notes


def _is_no_embed_class(positions: int, special: int, timm_config: TimmConfig) -> bool:
    """Whether the `special` tokens before the patches have no positions (timm's no_embed_class): as config.json says, or where
    only then the positions are a square."""
    if "no_embed_class" in timm_config.arguments:
        return bool(timm_config.arguments["no_embed_class"])
    return (
        special > 0
        and math.isqrt(positions) ** 2 == positions
        and math.isqrt(positions - special) ** 2 != positions - special
    )


FAMILY = Family("timm/DeiT", is_timm, read_timm)
