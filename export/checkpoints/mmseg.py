"""mmsegmentation's SETR and Segmenter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dovit.export.checkpoints.keys import Account, Rule, check_classes
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import image_size_for, resize_positions, trained_grid
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
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

STRIDES = {("setr", 512): 341, ("setr", 768): 512, ("segmenter", 512): 480, ("segmenter", 640): 608}


def _layer_rules(source: str, target: str) -> list[Rule]:
    head, to = rf"{source}\.layers\.(\d+)\.", rf"{target}.layers.\1."
    return [
        (head + r"ln([12])\.(.+)", to + r"norm\2.\3"),
        (head + r"attn\.attn\.in_proj_(weight|bias)", to + r"attn.qkv.\2"),
        (head + r"attn\.attn\.out_proj\.(.+)", to + r"attn.proj.\2"),
        (head + r"ffn\.layers\.0\.0\.(.+)", to + r"mlp.fc1.\2"),
        (head + r"ffn\.layers\.1\.(.+)", to + r"mlp.fc2.\2"),
    ]


def _conv(source: str, target: str) -> list[Rule]:
    """A ConvModule: convolution and batch norm."""
    return [
        (source + r"\.conv\.(?P<rest>.+)", target + r".0.\g<rest>"),
        (source + r"\.bn\.(?P<rest>.+)", target + r".1.\g<rest>"),
    ]


BACKBONE_RULES: list[Rule] = [
    *_layer_rules("backbone", "backbone"),
    (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.patch_embed.\1"),
    (r"backbone\.ln1\.(.+)", r"backbone.norm.\1"),
]
HEAD_RULES: list[Rule] = [
    (r"auxiliary_head\.(\d+)\.norm\.(.+)", r"heads.\1.norm.\2"),
    *_conv(r"auxiliary_head\.(\d+)\.up_convs\.(\d+)\.0", r"heads.\1.convs.\2"),
    *_conv(r"auxiliary_head\.(\d+)\.convs\.(\d+)", r"heads.\1.convs.\2"),
    *_conv(r"auxiliary_head\.(\d+)\.conv_cat", r"heads.\1.cat"),
    (r"auxiliary_head\.(\d+)\.conv_seg\.(.+)", r"heads.\1.classify.\2"),
]
DECODER_RULES: dict[str, list[Rule]] = {
    "setr-up": [
        (r"decode_head\.norm\.(.+)", r"decoder.norm.\1"),
        *_conv(r"decode_head\.up_convs\.(\d+)\.0", r"decoder.convs.\1"),
        (r"decode_head\.conv_seg\.(.+)", r"decoder.classify.\1"),
    ],
    "setr-mla": [
        (r"neck\.norm\.(.+)", r"decoder.norms.\1"),
        *_conv(r"neck\.mla\.channel_proj\.(\d+)", r"decoder.project.\1"),
        *_conv(r"neck\.mla\.feat_extract\.(\d+)", r"decoder.extract.\1"),
        *_conv(r"decode_head\.up_convs\.(\d+)\.(\d+)", r"decoder.heads.\1.\2"),
        (r"decode_head\.conv_seg\.(.+)", r"decoder.classify.\1"),
    ],
    "segmenter-mask": [
        (r"decode_head\.cls_emb", r"decoder.class_embed", lambda t: t[0]),
        *_layer_rules("decode_head", "decoder"),
        (r"decode_head\.dec_proj\.(.+)", r"decoder.project.\1"),
        (r"decode_head\.patch_proj\.(.+)", r"decoder.project_patches.\1"),
        (r"decode_head\.classes_proj\.(.+)", r"decoder.project_classes.\1"),
        (r"decode_head\.decoder_norm\.(.+)", r"decoder.norm.\1"),
        (r"decode_head\.mask_norm\.(.+)", r"decoder.mask_norm.\1"),
    ],
    "segmenter-linear": [(r"decode_head\.conv_seg\.(.+)", r"decoder.classify.\1")],
}


def is_mmseg(state: dict[str, Tensor]) -> bool:
    """Whether these are the keys of a mmsegmentation ViT segmenter."""
    return "backbone.layers.0.ln1.weight" in state and any(key.startswith("decode_head.") for key in state)


def read_mmseg(
    path: Path, content: dict[str, Any], state: dict[str, Tensor], options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    """The model and notes on keys that were left out."""
    # a single auxiliary head has no number
    state = {re.sub(r"^auxiliary_head\.(?!\d)", "auxiliary_head.0.", key): tensor for key, tensor in state.items()}
    account = Account(path, state)
    kind = _kind(account, options)
    family = kind.split("-")[0]
    meta = _mapping(content.get("meta"))

    embed = account.take("backbone.pos_embed")[0].float()  # [1+N0, E]
    class_token = account.take("backbone.cls_token")[0].float()
    projection = account.state.get("backbone.patch_embed.projection.weight")
    if projection is None:
        raise DovitError(f"{path}: the key backbone.patch_embed.projection.weight is missing")
    dim, patch = embed.shape[1], projection.shape[-1]
    image_size = image_size_for(len(embed) - 1, patch, options.image_size)
    grid = image_size[0] // patch, image_size[1] // patch
    trained = trained_grid(len(embed) - 1, patch, options.image_size)
    positions = resize_positions(embed[1:], grid, "bilinear" if family == "setr" else "bicubic", trained=trained)
    prefix = 0 if kind == "setr-mla" else 1
    account.weights["backbone.pos_embed"] = positions
    account.weights["backbone.prefix"] = (class_token + embed[:1])[:prefix]
    if not prefix:
        account.unused["SETR-MLA drops the class token before the first layer"] = ["backbone.cls_token"]
    if not account.has(r"backbone\.patch_embed\.projection\.bias"):  # mmsegmentation 1.2
        account.weights["backbone.patch_embed.bias"] = torch.zeros(dim)

    depth = account.count(r"backbone\.layers\.(\d+)\..+")
    backbone = BackboneConfig(
        embed_dim=dim, depth=depth, heads=max(dim // 64, 1), patch=patch, prefix=prefix, norm_eps=1e-6,
        mlp_dim=_rows(account, "backbone.layers.0.ffn.layers.0.0.weight"), final_norm=family == "segmenter",
    )  # fmt: skip
    decoder, classes = _decoder(account, kind, backbone)
    heads = _heads(account, kind, depth, meta, options)
    if not options.dense and not heads:
        heads = options.new_heads(path, depth)
    side = image_size[0] if image_size[0] == image_size[1] else 0
    stride = STRIDES.get((family, side))
    names, palette = _labels(meta, classes)
    statistics = IMAGENET if family == "setr" else HALF
    config = ModelConfig(
        image_size=image_size,
        classes=check_classes(classes, options.classes),
        backbone=backbone,
        decoder=decoder,
        decisions=heads,
        thresholds=options.thresholds_for(len(heads)),
        slide_stride=(stride, stride) if stride else (image_size[0] * 2 // 3, image_size[1] * 2 // 3),
        class_names=names,
        palette=palette,
        mean=settings.choose("mean", option=("--mean", options.mean), assumed=(family, statistics["mean"])),
        std=settings.choose("std", option=("--std", options.std), assumed=(family, statistics["std"])),
    )
    if options.dense:
        account.leave(r"auxiliary_head\..+", "auxiliary heads, left out by --dense")
    account.rename(
        BACKBONE_RULES + HEAD_RULES + DECODER_RULES["setr-up" if kind in ("setr-naive", "setr-pup") else kind]
    )
    return account.model(config, ("heads.",) if options.untrained else ()), account.notes()


def _kind(account: Account, options: ReadOptions) -> str:
    if account.has(r"neck\.mla\..+"):
        found = "setr-mla"
    elif account.has(r"decode_head\.cls_emb"):
        found = "segmenter-mask"
    elif account.has(r"decode_head\.up_convs\..+"):
        kernel = account.state.get("decode_head.up_convs.0.0.conv.weight", torch.empty(1)).shape[-1]
        found = "setr-naive" if kernel == 1 else "setr-pup"
        if options.arch in ("setr-naive", "setr-pup"):  # the same keys: only the user knows better
            return options.arch
    else:
        found = "segmenter-linear"
    if options.arch is not None and options.arch != found:
        raise UsageError(f"--arch {options.arch}: the keys of {account.path} are those of {found}")
    return found


def _decoder(account: Account, kind: str, backbone: BackboneConfig) -> tuple[DecoderConfig, int]:
    if kind == "segmenter-mask":
        classes, width = account.state["decode_head.cls_emb"].shape[1:]
        mlp = _rows(account, "decode_head.layers.0.ffn.layers.0.0.weight")
        layers = account.count(r"decode_head\.layers\.(\d+)\..+")
        return SegmenterMaskDecoder(embed_dim=width, layers=layers, heads=max(width // 64, 1), mlp_dim=mlp), classes
    classes = _rows(account, "decode_head.conv_seg.weight")
    if kind == "segmenter-linear":
        return SegmenterLinearDecoder(), classes
    if kind == "setr-mla":
        levels = account.count(r"neck\.norm\.(\d+)\..+")
        taps = tuple(backbone.depth * (k + 1) // levels for k in range(levels))
        channels = _rows(account, "neck.mla.channel_proj.0.conv.weight")
        narrow = _rows(account, "decode_head.up_convs.0.0.conv.weight")
        return SetrMlaDecoder(taps=taps, channels=channels, head_channels=narrow), classes
    first = account.state["decode_head.up_convs.0.0.conv.weight"]
    count = account.count(r"decode_head\.up_convs\.(\d+)\..+")
    scale = 4 if kind == "setr-naive" else 2
    channels, kernel = first.shape[0], first.shape[-1]
    decoder = SetrUpDecoder(
        kind="setr-naive" if kind == "setr-naive" else "setr-pup", num_convs=count, kernel=kernel, channels=channels,
        up_scale=scale,
    )  # fmt: skip
    return decoder, classes


def _heads(
    account: Account, kind: str, depth: int, meta: dict[str, Any], options: ReadOptions
) -> tuple[HeadConfig, ...]:
    count = account.count(r"auxiliary_head\.(\d+)\..+")
    if kind == "setr-mla" and count:
        reason = (
            "SETR-MLA's auxiliary heads sit on the neck, whose first input is the last layer: they cannot decide early"
        )
        account.leave(r"auxiliary_head\..+", reason)
        return ()
    if options.dense or not count:
        return ()
    layers = _decision_layers(account, count, depth, meta, options)
    return tuple(_head(account, number, layer) for number, layer in enumerate(layers))


def _head(account: Account, number: int, layer: int) -> HeadConfig:
    name = f"auxiliary_head.{number}"
    setr = account.count(rf"auxiliary_head\.{number}\.up_convs\.(\d+)\..+")
    fcn = account.count(rf"auxiliary_head\.{number}\.convs\.(\d+)\..+")
    first = account.state.get(f"{name}.up_convs.0.0.conv.weight", account.state.get(f"{name}.convs.0.conv.weight"))
    concat = f"{name}.conv_cat.conv.weight" in account.state
    first = account.state[f"{name}.conv_cat.conv.weight"] if first is None and concat else first
    sizes = {} if first is None else {"channels": first.shape[0], "kernel": first.shape[-1]}
    norm = f"{name}.norm.weight" in account.state
    return HeadConfig(layer=layer, norm=norm, num_convs=setr or fcn, concat=concat, **sizes)


def _decision_layers(
    account: Account, count: int, depth: int, meta: dict[str, Any], options: ReadOptions
) -> tuple[int, ...]:
    """Auxiliary head k reads the k-th of the backbone's `out_indices`: the config in the file, or SETR's of 24 layers."""
    layers = options.decision_layers
    if layers is None:
        text = str(meta.get("cfg") or meta.get("config") or "")
        written = re.search(r"out_indices\s*=\s*[(\[]([\d,\s]+)[)\]]", text)
        if written:
            layers = tuple(int(n) + 1 for n in re.findall(r"\d+", written[1]))[:count]
        elif depth == 24 and account.has(r"auxiliary_head\.0\.up_convs\..+"):
            layers = (10, 15, 20)[:count]
    if layers is None:
        raise UsageError(
            f"{account.path}: its {count} auxiliary heads can decide, but the file does not say after which layers they "
            f"sit: say --decision-layers, as 3,6,9"
        )
    if len(layers) != count:
        raise UsageError(f"--decision-layers names {len(layers)} layers, the checkpoint has {count} heads")
    if list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] >= depth:
        raise UsageError(
            f"--decision-layers {','.join(map(str, layers))}: must ascend and lie between 1 and {depth - 1}"
        )
    return layers


def _rows(account: Account, key: str) -> int:
    if key not in account.state:
        raise DovitError(f"{account.path}: the key {key} is missing; is this the whole checkpoint?")
    return int(account.state[key].shape[0])


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _labels(meta: dict[str, Any], classes: int) -> tuple[Any, Any]:
    """Class names and palette from the metadata, in the spelling of 0.x or 1.x, where they fit."""
    dataset = _mapping(meta.get("dataset_meta"))
    names: Any = meta.get("CLASSES") or dataset.get("classes")
    palette: Any = meta.get("PALETTE") or dataset.get("palette")
    fits = [isinstance(value, list | tuple) and len(value) == classes for value in (names, palette)]
    return (
        tuple(str(name) for name in names) if fits[0] else None,
        tuple(tuple(int(v) for v in colour) for colour in palette) if fits[1] else None,
    )
