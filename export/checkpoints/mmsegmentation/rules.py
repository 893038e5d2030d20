"""mmsegmentation's keys and ours."""

from __future__ import annotations

import torch

from dovit.export.checkpoints.keys import Account, Rule


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
    (r"backbone\.patch_embed\.norm\.(.+)", r"backbone.patch_norm.\1"),
    (r"backbone\.ln_pre\.(.+)", r"backbone.pre_norm.\1"),
    (r"backbone\.ln1\.(.+)", r"backbone.norm.\1"),
]


def _fcn_rules(source: str, target: str) -> list[Rule]:
    return [
        *_conv(source + r"\.convs\.(?P<k>\d+)", target + r".convs.\g<k>"),
        *_conv(source + r"\.conv_cat", target + ".cat"),
        (source + r"\.conv_seg\.(?P<rest>.+)", target + r".classify.\g<rest>"),
    ]


def head_rules(source: str, number: int) -> list[Rule]:
    """An auxiliary head `source`, such as `auxiliary_head.2`, as decision head `number`, from 0."""
    at, target = source.replace(".", r"\."), f"heads.{number}"
    return [
        (at + r"\.norm\.(?P<rest>.+)", target + r".norm.\g<rest>"),
        *_conv(at + r"\.up_convs\.(?P<k>\d+)\.0", target + r".convs.\g<k>"),
        *_fcn_rules(at, target),
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
    "segmenter-linear": _fcn_rules("decode_head", "decoder"),
}
DECODER_RULES["setr-naive"] = DECODER_RULES["setr-pup"] = DECODER_RULES.pop("setr-up")


def fill_biases(account: Account, source: str, target: str, layers: int, dim: int) -> None:
    """Attention without any bias, as `qkv_bias=False` makes it, has zeros in our model."""
    at = source.replace(".", r"\.")
    if account.has(at + r"\.layers\.\d+\.attn\.attn\.(in_proj_|out_proj\.)bias"):
        return
    for layer in range(layers):
        account.weights[f"{target}.layers.{layer}.attn.qkv.bias"] = torch.zeros(3 * dim)
        account.weights[f"{target}.layers.{layer}.attn.proj.bias"] = torch.zeros(dim)
