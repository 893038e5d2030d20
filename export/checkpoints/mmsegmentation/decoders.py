"""mmsegmentation's decode heads, neck and auxiliary heads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dovit.export.checkpoints.keys import Account
from dovit.export.checkpoints.mmsegmentation.backbone import Read
from dovit.export.checkpoints.mmsegmentation.layers import activation, conv_config, layer_norm_eps
from dovit.export.checkpoints.mmsegmentation.rules import fill_biases
from dovit.export.checkpoints.options import LEFT_OUT, ReadOptions, check_decision_layers
from dovit.export.checkpoints.section import Section
from dovit.export.model.config import (
    ConvConfig,
    DecoderConfig,
    HeadConfig,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.runtime.errors import DovitError, UsageError

TRAINING_KEYS = ("dropout_ratio", "loss_decode", "ignore_index", "sampler", "init_cfg", "threshold")
MASK_TRAINING_KEYS = ("drop_path_rate", "drop_rate", "attn_drop_rate", "init_std", "mlp_ratio")
TYPES = {
    "SETRUPHead": "setr",
    "SETRMLAHead": "setr-mla",
    "FCNHead": "segmenter-linear",
    "SegmenterMaskTransformerHead": "segmenter-mask",
}


def decoder_kind(account: Account, head: Section, options: ReadOptions) -> str:
    """Which decoder this is: by the configuration's type, otherwise by the keys."""
    if account.has(r"decode_head\.cls_emb"):
        by_keys = "segmenter-mask"
    elif account.has(r"neck\.mla\..+"):
        by_keys = "setr-mla"
    elif account.has(r"decode_head\.up_convs\..+"):
        kernel = account.tensor("decode_head.up_convs.0.0.conv.weight").shape[-1]
        by_keys = "setr-naive" if kernel == 1 else "setr-pup"
    else:
        by_keys = "segmenter-linear"
    said = head.type()
    if said is not None and said not in TYPES:
        raise head.refusal("type", f"dovit's decoders are {', '.join(TYPES)}")
    if (said is not None and not by_keys.startswith(TYPES[said])) or (said == "SETRUPHead" and by_keys == "setr-mla"):
        raise head.refusal("type", f"the weights are those of {by_keys}; is this the configuration of this checkpoint?")
    if options.arch in ("setr-naive", "setr-pup") and by_keys in ("setr-naive", "setr-pup"):
        return options.arch  # the same keys: only the user knows better
    if options.arch is not None and options.arch != by_keys:
        raise UsageError(f"--arch {options.arch}: the keys of {account.path} are those of {by_keys}")
    return by_keys


@dataclass(frozen=True)
class Decoder:
    """A decoder, its number of classes, and the layer (from 1) whose output it decodes: what comes after is not needed."""

    config: DecoderConfig
    classes: int
    layer: int


def read_decoder(account: Account, kind: str, model: Section, backbone: Read) -> Decoder:
    """The decode head, and the neck where there is one."""
    head = model.section("decode_head")
    _common(head)
    if kind == "segmenter-mask":
        classes = int(account.tensor("decode_head.cls_emb").shape[1])
    else:
        classes = account.rows("decode_head.conv_seg.weight")
    head.get("num_classes")
    if head.get("out_channels") == 1 or classes == 1:
        raise DovitError(
            f"{account.path}: model.decode_head.out_channels = 1: a single logit with a threshold; dovit takes the class "
            f"with the largest logit, and needs two classes or more"
        )
    head.same("num_classes", classes)
    head.same("out_channels", classes)
    if kind != "setr-mla" and (model.get("neck") is not None or account.has(r"neck\..+")):
        raise model.refusal("neck", f"dovit's {kind} has no neck")
    config: DecoderConfig
    match kind:
        case "setr-naive" | "setr-pup":
            config, layer = (
                _up(account, head, "setr-naive" if kind == "setr-naive" else "setr-pup"),
                _input(head, backbone),
            )
        case "setr-mla":
            config, layer = _mla(account, head, model.section("neck"), backbone)
        case "segmenter-linear":
            config, layer = _fcn(account, head), _input(head, backbone)
        case _:
            config, layer = _mask(account, head), _input(head, backbone)
    head.finish()
    return Decoder(config, int(classes), layer)


def _common(head: Section) -> None:
    """What every decode head and auxiliary head has."""
    head.type()
    head.only("align_corners", False, default=False, reason="dovit resizes with corners not aligned, in every runtime")
    head.ignore(*TRAINING_KEYS, "in_channels", "channels")


def _input(head: Section, backbone: Read) -> int:
    """The layer whose output the head takes."""
    head.only("input_transform", None, reason="dovit's heads take one output of the backbone")
    index = head.get("in_index", -1)
    if isinstance(index, bool) or not isinstance(index, int):
        raise head.refusal("in_index", "not a whole number")
    features = backbone.features if backbone.features is not None else (backbone.config.depth,)
    if not -len(features) <= index < len(features):
        raise head.refusal("in_index", f"the backbone hands on {len(features)} outputs")
    layer = features[index]
    if layer == 0:
        raise head.refusal("in_index", "this is the embedded image, before any layer: there is nothing to split")
    return layer


def _conv_of(account: Account, head: Section, prefix: str) -> ConvConfig:
    """The ConvModules of a head whose keys begin with `prefix`."""
    at = prefix.replace(".", r"\.")
    bare = account.has(at + r"\.(?:up_convs|convs|conv_cat|mla)\..*conv\.bias")
    return conv_config(head, batch_norm=not bare)


def _up(account: Account, head: Section, kind: str) -> SetrUpDecoder:
    first = account.tensor("decode_head.up_convs.0.0.conv.weight")
    convs, kernel = account.count(r"decode_head\.up_convs\.(\d+)\..+"), first.shape[-1]
    head.same("num_convs", convs, 1)
    head.same("kernel_size", kernel, 3)
    # the shapes of other combinations than the paper's do not tell how far each convolution is followed by upsampling
    known = {(1, 1): 4, (4, 3): 2}.get((convs, kernel))
    scale = head.choose(
        "up_scale", 4, assumed=None if known is None else ("as in SETR's paper", known), name="decode_head.up_scale"
    )
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise head.refusal("up_scale", "not a whole number from 1 up")
    eps = layer_norm_eps(head, "norm_layer", 1e-6, assumed=("mmsegmentation's default", 1e-6))
    return SetrUpDecoder(
        kind="setr-naive" if kind == "setr-naive" else "setr-pup",
        num_convs=convs,
        kernel=kernel,
        channels=first.shape[0],
        up_scale=scale,
        norm_eps=eps,
        conv=_conv_of(account, head, "decode_head"),
    )


def _mla(account: Account, head: Section, neck: Section, backbone: Read) -> tuple[SetrMlaDecoder, int]:
    if neck.type("MLANeck") != "MLANeck":
        raise neck.refusal("type", "dovit's SETR-MLA has mmsegmentation's MLANeck")
    neck.ignore("in_channels")
    levels = account.count(r"neck\.norm\.(\d+)\..+")
    channels, narrow = (
        account.rows("neck.mla.channel_proj.0.conv.weight"),
        account.rows("decode_head.up_convs.0.0.conv.weight"),
    )
    neck.same("out_channels", channels)
    head.same("mla_channels", narrow, 128)
    features = backbone.features or ()
    if features[:1] == (0,):
        raise DovitError(
            f"{account.path}: model.backbone.out_origin = True: dovit's SETR-MLA taps layers, not the embedded image"
        )
    if len(features) != levels:
        raise DovitError(f"{account.path}: the backbone hands on {len(features)} outputs, and the neck takes {levels}")
    head.only("input_transform", None, "multiple_select", reason="SETRMLAHead selects several inputs")
    order = head.get("in_index", tuple(range(levels)) if not head.known else -1)
    if not isinstance(order, list | tuple) or not all(isinstance(k, int) and -levels <= k < levels for k in order):
        raise head.refusal("in_index", f"not a list of the neck's {levels} outputs")
    scale = head.choose("up_scale", 4, assumed=("as in SETR's paper", 4), name="decode_head.up_scale")
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise head.refusal("up_scale", "not a whole number from 1 up")
    bare = account.has(r"neck\.mla\..*conv\.bias")
    config = SetrMlaDecoder(
        taps=features,
        channels=channels,
        head_channels=narrow,
        up_scale=scale,
        norm_eps=layer_norm_eps(neck, "norm_layer", 1e-6, assumed=("mmsegmentation's default", 1e-6)),
        order=tuple(k % levels for k in order),
        conv=conv_config(neck, batch_norm=not bare, default_act=None if neck.known else "ReLU"),
        head_conv=_conv_of(account, head, "decode_head"),
    )
    neck.finish()
    return config, features[-1]


def _fcn(account: Account, head: Section, prefix: str = "decode_head") -> SegmenterLinearDecoder:
    at = prefix.replace(".", r"\.")
    convs, concat = account.count(at + r"\.convs\.(\d+)\..+"), account.has(at + r"\.conv_cat\..+")
    head.same("num_convs", convs, 2)
    head.same("concat_input", concat, True)
    first = account.state.get(f"{prefix}.convs.0.conv.weight", account.state.get(f"{prefix}.conv_cat.conv.weight"))
    dilation = head.get("dilation", 1)
    if first is None:  # conv_seg alone: what is said about convolutions does not matter
        head.ignore("kernel_size", "norm_cfg", "act_cfg", "conv_cfg")
        return SegmenterLinearDecoder()
    kernel = first.shape[-1]
    head.same("kernel_size", kernel, 3)
    if kernel % 2 == 0:
        raise head.refusal("kernel_size", "a convolution of even size changes the size of the map")
    if isinstance(dilation, bool) or not isinstance(dilation, int) or dilation < 1:
        raise head.refusal("dilation", "not a whole number from 1 up")
    if kernel > 1:
        head.choose("dilation", 1, assumed=("mmsegmentation's default", 1))
    return SegmenterLinearDecoder(
        num_convs=convs,
        kernel=kernel,
        channels=first.shape[0],
        concat=concat,
        dilation=dilation,
        conv=_conv_of(account, head, prefix),
    )


def _mask(account: Account, head: Section) -> SegmenterMaskDecoder:
    width = account.tensor("decode_head.cls_emb").shape[2]
    layers = account.count(r"decode_head\.layers\.(\d+)\..+")
    head.same("num_layers", layers)
    head.same("embed_dims", width)
    head.same("qkv_bias", account.has(r"decode_head\.layers\.0\.attn\.attn\.in_proj_bias"), True)
    head.only("num_fcs", 2, default=2, reason="dovit's layers have an MLP of two linear layers")
    head.ignore(*MASK_TRAINING_KEYS, "conv_cfg")
    assumed = ("64 channels each", width // 64) if width % 64 == 0 else None
    heads = head.choose("num_heads", None, assumed=assumed)
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise head.refusal("num_heads", f"does not divide {width} channels")
    fill_biases(account, "decode_head", "decoder", layers, width)
    return SegmenterMaskDecoder(
        embed_dim=width,
        layers=layers,
        heads=heads,
        mlp_dim=account.rows("decode_head.layers.0.ffn.layers.0.0.weight"),
        norm_eps=layer_norm_eps(head, "norm_cfg", 1e-5, assumed=("mmsegmentation's default", 1e-5)),
        activation=activation(head, "GELU"),
    )


@dataclass(frozen=True)
class Heads:
    """The decision heads in the order of their layers, and the key of the auxiliary head that each is."""

    configs: tuple[HeadConfig, ...]
    keys: tuple[str, ...]


def read_heads(account: Account, kind: str, model: Section, backbone: Read, last: int, options: ReadOptions) -> Heads:
    """The auxiliary heads that can decide: those after a layer before `last`, whose output is decoded."""
    sections = model.sections("auxiliary_head")
    count = account.count(r"auxiliary_head\.(\d+)\..+")
    if options.dense:
        account.leave(r"auxiliary_head\..+", f"auxiliary heads{LEFT_OUT}")
        return Heads((), ())
    if kind == "setr-mla" and count:
        reason = (
            "SETR-MLA's auxiliary heads sit on the neck, whose first input is the last layer: they cannot decide early"
        )
        account.leave(r"auxiliary_head\..+", reason)
        return Heads((), ())
    if not count:
        return Heads((), ())
    if sections and len(sections) != count:
        raise model.refusal(
            "auxiliary_head", f"the weights have {count} heads; is this the configuration of this checkpoint?"
        )
    if not sections:
        sections = [Section(model.path, f"model.auxiliary_head.{k}", {}, False, model.settings) for k in range(count)]
    layers = _decision_layers(account, sections, backbone, last, options)
    found: list[tuple[HeadConfig, str]] = []
    for number, (section, layer) in enumerate(zip(sections, layers, strict=True)):
        key = f"auxiliary_head.{number}"
        if layer >= last or layer == 0:
            where = "the embedded image" if layer == 0 else f"layer {layer}"
            account.leave(
                rf"auxiliary_head\.{number}\..+",
                f"an auxiliary head on {where}, which decides nothing before layer {last}",
            )
            continue
        found.append((_head(account, section, key, layer), key))
    found.sort(key=lambda one: one[0].layer)
    after = [config.layer for config, _ in found]
    if len(set(after)) != len(after):
        raise DovitError(
            f"{account.path}: its auxiliary heads sit after the layers {', '.join(map(str, after))}, two after one of them, "
            f"and one decides: say --decision-layers, or leave the heads out with --dense"
        )
    if found:
        model.settings.choose(
            "decision layers",
            option=("--decision-layers", after) if options.decision_layers else None,
            file=("configuration", after) if sections[0].known else None,
            assumed=("as in mmsegmentation's configurations", after),
        )
    return Heads(tuple(config for config, _ in found), tuple(key for _, key in found))


def _decision_layers(
    account: Account, sections: list[Section], backbone: Read, last: int, options: ReadOptions
) -> list[int]:
    """After which layer each auxiliary head sits."""
    count = len(sections)
    asked = options.decision_layers
    if asked is not None:
        if len(asked) != count:
            raise UsageError(f"--decision-layers names {len(asked)} layers, the checkpoint has {count} heads")
        check_decision_layers(asked, last)
        for section in sections:
            section.ignore("in_index", "input_transform")
        return list(asked)
    if backbone.features is None or (not sections[0].known and len(backbone.features) != count + 1):
        raise UsageError(
            f"{account.path}: its {count} auxiliary heads can decide, but the file does not say after which layers they "
            f"sit: say --decision-layers, as 3,6,9"
        )
    if not sections[0].known:
        return list(backbone.features[:count])
    return [_input_of_head(section, backbone) for section in sections]


def _input_of_head(section: Section, backbone: Read) -> int:
    outer = replace(backbone, features=tuple(layer or -1 for layer in backbone.features or ()))
    return max(_input(section, outer), 0)  # the embedded image is no error here: such a head is left out


def _head(account: Account, section: Section, key: str, layer: int) -> HeadConfig:
    """One auxiliary head: SETR's own, or an FCNHead. Its upsampling is for its loss: a decision is made per token."""
    at = key.replace(".", r"\.")
    setr = account.count(at + r"\.up_convs\.(\d+)\..+")
    kind = section.type("SETRUPHead" if setr else "FCNHead")
    if kind not in ("SETRUPHead", "FCNHead"):
        raise section.refusal("type", "dovit's decision heads are SETRUPHead and FCNHead; --dense leaves them out")
    section.ignore(
        *TRAINING_KEYS, "in_channels", "channels", "num_classes", "out_channels", "align_corners", "up_scale"
    )
    if kind == "FCNHead":
        fcn = _fcn(account, section, key)
        head = HeadConfig(layer=layer, **fcn.model_dump(exclude={"kind", "taps"}))
    else:
        first: torch.Tensor = account.tensor(f"{key}.up_convs.0.0.conv.weight")
        section.same("num_convs", setr, 1)
        section.same("kernel_size", first.shape[-1], 3)
        head = HeadConfig(
            layer=layer,
            norm=True,
            num_convs=setr,
            channels=first.shape[0],
            kernel=first.shape[-1],
            norm_eps=layer_norm_eps(section, "norm_layer", 1e-6, assumed=("mmsegmentation's default", 1e-6)),
            conv=_conv_of(account, section, key),
        )
    section.finish()
    return head
