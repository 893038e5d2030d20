"""rstrudel/segmenter: a checkpoint with `variant.yml` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.keys import Account, Rule, check_classes
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import (
    Interpolation,
    check_order,
    image_size_for,
    resize_positions,
    trained_grid,
)
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.variant import read_variant
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import HALF, IMAGENET, SegmenterLinearDecoder, SegmenterMaskDecoder
from dovit.runtime.errors import DovitError, UsageError

STATISTICS = {"vit": HALF, "deit": IMAGENET}  # segm.data.utils.STATS, times 255
POSITIONS = Interpolation("bilinear")  # segm.model.utils.resize_pos_embed
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


def is_rstrudel(checkpoint: Checkpoint) -> bool:
    """Whether these are the keys of a rstrudel/segmenter model."""
    return "encoder.blocks.0.attn.qkv.weight" in checkpoint.state


def read_rstrudel(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    path, state = checkpoint.path, checkpoint.state
    file = options.config or checkpoint.beside("variant.yml")
    variant, overridden = read_variant(file, options.changes)
    net, window = variant.net_kwargs, variant.inference_kwargs

    def choose(name: str, flag: str, given: Any, key: str, value: Any, assumed: tuple[str, Any] | None) -> Any:
        """The setting `name`: the option `flag`, else what --set or the file says at `key`, else `assumed`."""
        option = ("--set", value) if given is None and key in overridden else (flag, given)
        return settings.choose(
            name, option=option, file=None if value is None else (f"{file.name}: {key}", value), assumed=assumed
        )

    account = Account(path, dict(state))
    mask = account.has(r"decoder\.cls_emb")
    kind = "segmenter-mask" if mask else "segmenter-linear"
    if options.arch not in (None, kind):
        raise UsageError(f"--arch {options.arch}: the keys of {path} are those of {kind}")

    embed = account.take("encoder.pos_embed")[0].float()  # [P+N0, E]
    special = [account.take("encoder.cls_token")[0].float()]
    if account.has(r"encoder\.dist_token"):
        special.append(account.take("encoder.dist_token")[0].float())
    prefix, dim = len(special), embed.shape[1]
    patch = account.state["encoder.patch_embed.proj.weight"].shape[-1]
    depth = account.count(r"encoder\.blocks\.(\d+)\..+")
    decoder, classes = _decoder(account, mask)
    layers = decoder.layers if isinstance(decoder, SegmenterMaskDecoder) else None
    _check(
        file,
        ("net_kwargs.patch_size", net.patch_size, patch),
        ("net_kwargs.d_model", net.d_model, dim),
        ("net_kwargs.n_layers", net.n_layers, depth),
        ("net_kwargs.n_cls", net.n_cls, classes),
        ("net_kwargs.distilled", net.distilled, prefix == 2),
        ("net_kwargs.channels", net.channels, account.state["encoder.patch_embed.proj.weight"].shape[1]),
        ("net_kwargs.decoder.name", net.decoder.kind, kind),
        ("net_kwargs.decoder.n_layers", net.decoder.n_layers if mask else None, layers),
    )

    # segmenter runs windows of `window_size`, whatever the size that it was trained on
    shown = window.window_size
    stated = (shown, shown) if shown else net.image_size
    square = (
        ("a square", image_size_for(len(embed) - prefix, patch, None))
        if stated is None and options.image_size is None
        else None
    )
    key = "inference_kwargs.window_size" if shown else "net_kwargs.image_size"
    size = choose("image_size", "--image-size", options.image_size, key, stated, square)
    size = image_size_for(len(embed) - prefix, patch, options.image_size, size)
    trained = trained_grid(len(embed) - prefix, patch, options.image_size, net.image_size)
    grid = size[0] // patch, size[1] // patch
    if options.image_size is None:
        check_order(trained, grid, patch, str(file), "net_kwargs.image_size")
    account.weights["backbone.pos_embed"] = resize_positions(embed[prefix:], grid, POSITIONS, trained=trained)
    account.weights["backbone.prefix"] = torch.cat(special) + embed[:prefix]
    account.rename(RULES)
    # the classifier of the image-level pre-training, and the patches' input projection of old files
    account.leave(r"encoder\.(head|head_dist|pre_logits)\..+", "the backbone's image classifier")

    # its inference reads dataset_kwargs; net_kwargs has what the backbone was trained with
    key = "dataset_kwargs" if variant.dataset_kwargs.normalization else "net_kwargs"
    normalization = getattr(variant, key).normalization
    statistics = STATISTICS[normalization or "vit"]
    for name, given in (("mean", options.mean), ("std", options.std)):
        value = statistics[name]
        said = value if normalization else None
        choose(name, f"--{name}", given, f"{key}.normalization", said, ("normalization vit", value))
    if settings.choose("BGR weights", option=("--bgr", options.bgr), assumed=("segmenter reads RGB", False)):
        account.bgr_to_rgb()
    norm_eps = settings.choose("norm_eps", option=("--norm-eps", options.norm_eps), assumed=("segmenter's code", 1e-5))
    attention_heads = choose(
        "heads", "--heads", options.heads, "net_kwargs.n_heads", net.n_heads, ("64 channels each", max(dim // 64, 1))
    )
    windows = "slide" if shown else None
    mode = choose(
        "mode", "--mode", options.mode, "inference_kwargs.window_size", windows, ("the image is resized", "whole")
    )
    fits = window.window_stride and shown == size[0] == size[1]
    stride = choose(
        "stride",
        "--stride",
        options.stride,
        "inference_kwargs.window_stride",
        (window.window_stride,) * 2 if fits else None,
        ("two thirds of the window", (size[0] * 2 // 3, size[1] * 2 // 3)),
    )
    heads = options.new_heads(path, depth)
    config = ModelConfig(
        image_size=size,
        classes=check_classes(classes, options.classes),
        backbone=BackboneConfig(
            embed_dim=dim,
            depth=depth,
            heads=attention_heads,
            patch=patch,
            prefix=prefix,
            mlp_dim=state["encoder.blocks.0.mlp.fc1.weight"].shape[0],
            norm_eps=norm_eps,
            final_norm=True,
        ),
        decoder=decoder,
        decisions=heads,
        thresholds=options.thresholds_for(len(heads)),
        slide_stride=stride,
        mode=mode,
        mean=settings.chosen["mean"].value,
        std=settings.chosen["std"].value,
    )
    return account.model(config, ("heads.",) if options.untrained else ()), account.notes()


def _decoder(account: Account, mask: bool) -> tuple[SegmenterLinearDecoder | SegmenterMaskDecoder, int]:
    """The decoder and the number of classes."""
    if not mask:
        return SegmenterLinearDecoder(), account.state["decoder.head.weight"].shape[0]
    classes, width = account.state["decoder.cls_emb"].shape[1:]
    layers = account.count(r"decoder\.blocks\.(\d+)\..+")
    mlp_dim = account.state["decoder.blocks.0.mlp.fc1.weight"].shape[0]
    heads = max(width // 64, 1)  # as segmenter's create_decoder has it, whatever n_heads says
    return SegmenterMaskDecoder(embed_dim=width, layers=layers, heads=heads, mlp_dim=mlp_dim, norm_eps=1e-5), classes


def _check(file: Path, *claims: tuple[str, Any, Any]) -> None:
    """DovitError where `file` says another value (the second) than the weights are of (the third)."""
    for name, said, found in claims:
        if said is not None and said != found:
            raise DovitError(
                f"{file}: {name} is {said}, and the weights are of {found}: give the variant.yml that belongs to this checkpoint"
            )


FAMILY = Family("segmenter", is_rstrudel, read_rstrudel)
