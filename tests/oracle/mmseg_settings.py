"""mmsegmentation's settings, class by class as its constructors have them, with values to try for each.

    equal(…)    our model must compute what mmsegmentation's does
    refused(…)  our reader must refuse it, and name the setting
    SHAPES      the shapes of the weights tell; a configuration that says something else is refused
    TRAINING    nothing that a trained model computes depends on it

A parameter of a constructor that is missing here fails `test_every_setting_of_mmsegmentation_is_known`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SETR, SEGMENTER = ("setr-naive", "setr-pup"), ("segmenter-mask", "segmenter-linear")
VARIANTS = (*SETR, "setr-mla", *SEGMENTER)
ONE_EACH = ("setr-naive", "setr-mla", "segmenter-mask")  # for what does not depend on the decoder
GONE = object()  # removes the key


@dataclass(frozen=True)
class Try:
    """`edits`: dotted keys below `model` and their values. `options`: of ReadOptions. `refused`: what the refusal names."""

    edits: dict[str, Any]
    variants: tuple[str, ...] = VARIANTS
    options: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None


SHAPES: tuple[Try, ...] = ()
TRAINING: tuple[Try, ...] = ()


def equal(variants: tuple[str, ...], *several: dict[str, Any], **options: Any) -> tuple[Try, ...]:
    return tuple(Try(edits, variants, options) for edits in several)


def refused(name: str, variants: tuple[str, ...], *several: dict[str, Any]) -> tuple[Try, ...]:
    return tuple(Try(edits, variants, refused=name) for edits in several)


LN = {"type": "LN", "eps": 0.1, "requires_grad": True}
LEAKY, TANH, RELU = (
    {"type": "LeakyReLU", "negative_slope": 0.3},
    {"type": "GELU", "approximate": "tanh"},
    {"type": "ReLU"},
)
BN = {"type": "SyncBN", "eps": 0.5, "momentum": 0.2}


def _each(key: str, *values: Any) -> list[dict[str, Any]]:
    return [{key: value} for value in values]


def _head(key: str, *values: Any) -> list[dict[str, Any]]:
    return _each(f"decode_head.{key}", *values)


def _vit(key: str, *values: Any) -> list[dict[str, Any]]:
    return _each(f"backbone.{key}", *values)


CASES: dict[str, dict[str, tuple[Try, ...]]] = {
    "VisionTransformer": {
        "img_size": (
            *equal(VARIANTS, *_vit("img_size", (32, 80), (80, 32), 64)),
            *equal(VARIANTS, {"backbone.img_size": (32, 144)}, image_size=(64, 48)),
        ),
        "patch_size": equal(ONE_EACH, *_vit("patch_size", 8)),
        "patch_pad": (*equal(SETR, *_vit("patch_pad", "same")), *refused("patch_pad", SETR, *_vit("patch_pad", 1))),
        "in_channels": refused("in_channels", ONE_EACH, *_vit("in_channels", 1, 4)),
        "embed_dims": SHAPES,
        "num_layers": SHAPES,
        "num_heads": (
            *equal(VARIANTS, *_vit("num_heads", 1, 4)),
            *refused("num_heads", SETR, *_vit("num_heads", 0, "2")),
        ),
        "mlp_ratio": equal(ONE_EACH, *_vit("mlp_ratio", 2)),
        "out_origin": (
            *equal((*SETR, *SEGMENTER), *_vit("out_origin", True)),
            *refused("out_origin", ("setr-mla",), *_vit("out_origin", True)),
        ),
        "out_indices": (
            *equal((*SETR, "setr-mla"), *_vit("out_indices", (3, 2, 1, 0), [2, 0, 3, 1, 1])),
            *equal(SETR, {"backbone.out_indices": (1, 2), "decode_head.in_index": 1, "auxiliary_head": GONE}),
            *equal(SETR, {"backbone.out_indices": -1, "decode_head.in_index": 0, "auxiliary_head": GONE}),
            *equal(SEGMENTER, *_vit("out_indices", (1,), 2, (0, 3))),
        ),
        "qkv_bias": equal(VARIANTS, *_vit("qkv_bias", False)),
        "drop_rate": equal(SETR, *_vit("drop_rate", 0.5)),
        "attn_drop_rate": equal(SETR, *_vit("attn_drop_rate", 0.5)),
        "drop_path_rate": equal(SETR, *_vit("drop_path_rate", 0.5)),
        "with_cls_token": equal(VARIANTS, *_vit("with_cls_token", True, False, GONE)),
        "output_cls_token": refused("output_cls_token", VARIANTS, *_vit("output_cls_token", True)),
        "norm_cfg": (
            *equal(VARIANTS, *_vit("norm_cfg", LN, {"type": "LN"}, GONE)),
            *refused("norm_cfg", ONE_EACH, *_vit("norm_cfg", {"type": "BN"}, {**LN, "bias": False}, None)),
        ),
        "act_cfg": (
            *equal(ONE_EACH, *_vit("act_cfg", RELU, LEAKY, TANH)),
            *refused(
                "act_cfg",
                ONE_EACH,
                *_vit("act_cfg", {"type": "SiLU"}, {"type": "GELU", "approximate": "none", "slope": 1}),
            ),
        ),
        "patch_norm": equal(VARIANTS, *_vit("patch_norm", True)),
        "patch_bias": equal(SETR, *_vit("patch_bias", True)),
        "pre_norm": equal(VARIANTS, *_vit("pre_norm", True)),
        "final_norm": equal(VARIANTS, *_vit("final_norm", True, False)),
        "interpolate_mode": (
            *equal(VARIANTS, *_vit("interpolate_mode", "bilinear", "bicubic", GONE), image_size=(80, 96)),
            *refused("interpolate_mode", ONE_EACH, *_vit("interpolate_mode", "nearest", "trilinear")),
        ),
        "num_fcs": refused("num_fcs", ONE_EACH, *_vit("num_fcs", 1, 3)),
        "norm_eval": equal(SETR, *_vit("norm_eval", True)),
        "with_cp": equal(SETR, *_vit("with_cp", True)),
        "frozen_exclude": TRAINING,
        "pretrained": TRAINING,
        "init_cfg": TRAINING,
    },
    "BaseDecodeHead": {
        "in_channels": SHAPES,
        "channels": SHAPES,
        "num_classes": refused("num_classes", VARIANTS, *_head("num_classes", 6)),
        "out_channels": refused("out_channels", VARIANTS, *_head("out_channels", 1)),
        "threshold": equal(SETR, *_head("threshold", 0.4)),
        "dropout_ratio": equal(SETR, *_head("dropout_ratio", 0.7)),
        "conv_cfg": (
            *equal(SETR, *_head("conv_cfg", {"type": "Conv2d"})),
            *refused("conv_cfg", SETR, *_head("conv_cfg", {"type": "DCN"})),
        ),
        "norm_cfg": (
            *equal((*SETR, "setr-mla"), *_head("norm_cfg", BN, {"type": "BN"}, None, GONE)),
            *refused(
                "norm_cfg",
                (*SETR, "setr-mla"),
                *_head("norm_cfg", {"type": "GN", "num_groups": 4}, {**BN, "affine": False}),
            ),
        ),
        "act_cfg": (
            *equal((*SETR, "setr-mla"), *_head("act_cfg", LEAKY, TANH, {"type": "GELU"}, None)),
            *refused("act_cfg", (*SETR, "setr-mla"), *_head("act_cfg", {"type": "Swish"})),
        ),
        "in_index": (
            *equal(SETR, *_head("in_index", 2, 1, -2)),
            *equal(("setr-mla",), *_head("in_index", (3, 2, 1, 0), [1, 3, 0, 2], (0, 0, 1, -1))),
            *equal(SEGMENTER, *_head("in_index", 0)),
            *refused("in_index", (*SETR, *SEGMENTER), *_head("in_index", 7, (0, 1))),
        ),
        "input_transform": refused("input_transform", (*SETR, *SEGMENTER), *_head("input_transform", "resize_concat")),
        "loss_decode": equal(SETR, *_head("loss_decode", {"type": "DiceLoss"})),
        "ignore_index": equal(SETR, *_head("ignore_index", 0)),
        "sampler": TRAINING,
        "align_corners": refused("align_corners", VARIANTS, *_head("align_corners", True)),
        "init_cfg": TRAINING,
    },
    "SETRUPHead": {
        "norm_layer": (
            *equal(SETR, *_head("norm_layer", LN, {"type": "LN"})),
            *refused("norm_layer", SETR, *_head("norm_layer", {"type": "BN"})),
        ),
        "num_convs": equal(SETR, *_head("num_convs", 2, 3), {"decode_head.num_convs": 1, "decode_head.kernel_size": 3}),
        "up_scale": (
            *equal(SETR, *_head("up_scale", 1, 3)),
            *refused("up_scale", SETR, *_head("up_scale", 1.5, (2, 2))),
        ),
        "kernel_size": equal(SETR, *_head("kernel_size", 1, 3)),
        "init_cfg": TRAINING,
    },
    "SETRMLAHead": {
        "mla_channels": equal(("setr-mla",), {"decode_head.mla_channels": 4, "decode_head.channels": 16}),
        "up_scale": equal(("setr-mla",), *_head("up_scale", 2, 3)),
    },
    "MLANeck": {
        "in_channels": SHAPES,
        "out_channels": SHAPES,
        "norm_layer": equal(("setr-mla",), *_each("neck.norm_layer", LN, {"type": "LN"})),
        "norm_cfg": (
            *equal(("setr-mla",), *_each("neck.norm_cfg", BN, None, GONE)),
            *refused("neck.norm_cfg", ("setr-mla",), *_each("neck.norm_cfg", {"type": "GN", "num_groups": 4})),
        ),
        "act_cfg": equal(("setr-mla",), *_each("neck.act_cfg", LEAKY, TANH, None, GONE)),
    },
    "SegmenterMaskTransformerHead": {
        "in_channels": SHAPES,
        "num_layers": equal(("segmenter-mask",), *_head("num_layers", 1)),
        "num_heads": equal(("segmenter-mask",), *_head("num_heads", 1, 4)),
        "embed_dims": SHAPES,
        "mlp_ratio": equal(("segmenter-mask",), *_head("mlp_ratio", 2)),
        "drop_path_rate": equal(("segmenter-mask",), *_head("drop_path_rate", 0.5)),
        "drop_rate": equal(("segmenter-mask",), *_head("drop_rate", 0.5)),
        "attn_drop_rate": equal(("segmenter-mask",), *_head("attn_drop_rate", 0.5)),
        "num_fcs": refused("num_fcs", ("segmenter-mask",), *_head("num_fcs", 3)),
        "qkv_bias": equal(("segmenter-mask",), *_head("qkv_bias", False)),
        "act_cfg": equal(("segmenter-mask",), *_head("act_cfg", RELU, LEAKY, TANH)),
        "norm_cfg": (
            *equal(("segmenter-mask",), *_head("norm_cfg", LN)),
            *refused("norm_cfg", ("segmenter-mask",), *_head("norm_cfg", BN)),
        ),
        "init_std": TRAINING,
    },
    "FCNHead": {
        "num_convs": equal(
            ("segmenter-linear",),
            *_head("num_convs", 1, 2),
            {"decode_head.num_convs": 2, "decode_head.norm_cfg": BN},
            {"decode_head.num_convs": 1, "decode_head.act_cfg": LEAKY, "decode_head.norm_cfg": {"type": "BN"}},
        ),
        "kernel_size": (
            *equal(("segmenter-linear",), {"decode_head.num_convs": 2, "decode_head.kernel_size": 1}),
            *equal(("segmenter-linear",), {"decode_head.num_convs": 1, "decode_head.kernel_size": 5}),
        ),
        "concat_input": equal(
            ("segmenter-linear",),
            *({"decode_head.num_convs": n, "decode_head.concat_input": True} for n in (0, 1)),
            {
                "decode_head.num_convs": 2,
                "decode_head.concat_input": GONE,
                "decode_head.kernel_size": 3,
                "decode_head.dilation": 2,
            },
        ),
        "dilation": equal(
            ("segmenter-linear",), {"decode_head.num_convs": 2, "decode_head.kernel_size": 3, "decode_head.dilation": 2}
        ),
    },
    "SegDataPreProcessor": {
        "mean": equal(
            ONE_EACH,
            {"data_preprocessor.mean": GONE, "data_preprocessor.std": GONE},
            {"data_preprocessor.mean": [0.0, 128, 250]},
            {"data_preprocessor.mean": [0, 0, 0], "data_preprocessor.std": [255, 255, 255]},
            {"data_preprocessor.mean": [0], "data_preprocessor.std": [1]},
            {
                "data_preprocessor.mean": [9.0, 99, 199],
                "data_preprocessor.std": [20.0, 90, 200],
                "data_preprocessor.bgr_to_rgb": False,
            },
        ),
        "std": (
            *equal(ONE_EACH, {"data_preprocessor.std": [30.0, 60, 90]}),
            *refused("std", SETR, {"data_preprocessor.std": [0, 1, 1]}, {"data_preprocessor.std": [1, 1]}),
        ),
        "bgr_to_rgb": equal(ONE_EACH, *_each("data_preprocessor.bgr_to_rgb", False, GONE)),
        "rgb_to_bgr": equal(SETR, {"data_preprocessor.bgr_to_rgb": False, "data_preprocessor.rgb_to_bgr": True}),
        "size": TRAINING,
        "size_divisor": TRAINING,
        "pad_val": equal(SETR, {"data_preprocessor.pad_val": 7}),
        "seg_pad_val": TRAINING,
        "batch_augments": TRAINING,
        "test_cfg": (
            *equal(VARIANTS, {"data_preprocessor.test_cfg": {"size_divisor": 16}, "test_cfg": {"mode": "whole"}}),
            *refused(
                "size_divisor",
                VARIANTS,
                *_each("data_preprocessor.test_cfg", {"size_divisor": 32}),
                {"data_preprocessor.test_cfg": {"size_divisor": 32}, "test_cfg": {"mode": "whole"}},
            ),
            *refused(
                "test_cfg.size",
                VARIANTS,
                {"data_preprocessor.test_cfg": {"size": (96, 96)}, "test_cfg": {"mode": "whole"}},
            ),
        ),
    },
    "EncoderDecoder": {
        "backbone": SHAPES,
        "decode_head": refused("decode_head.type", VARIANTS, *_head("type", "ASPPHead")),
        "neck": refused("neck", SETR, {"neck": {"type": "FPN"}}),
        "auxiliary_head": equal(SETR, {"auxiliary_head": GONE}),
        "train_cfg": TRAINING,
        "test_cfg": (
            *equal(
                VARIANTS,
                *_each("test_cfg", {"mode": "whole"}, {}, GONE),
                {"test_cfg": {"mode": "slide", "crop_size": (64, 32), "stride": (20, 9)}},
            ),
            *refused("test_cfg", VARIANTS, *_each("test_cfg", {"mode": "tile"}, {"mode": "whole", "scales": 2})),
        ),
        "data_preprocessor": refused(
            "data_preprocessor.type", VARIANTS, {"data_preprocessor.type": "ImgDataPreprocessor"}
        ),
        "pretrained": TRAINING,
        "init_cfg": TRAINING,
    },
}


def every() -> Iterator[tuple[str, Try, str]]:
    """(a name, the case, the decoder) for each case and decoder."""
    for cls, parameters in CASES.items():
        for parameter, tries in parameters.items():
            for number, one in enumerate(tries):
                for variant in one.variants:
                    yield f"{cls}-{parameter}-{number}-{variant}", one, variant
