"""Small segmenters with random weights: every architecture, quick to run, with no two parameters equal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import (
    Activation,
    CorrectionConfig,
    DecoderConfig,
    EomtDecoder,
    LensConfig,
    RefinementConfig,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.export.model.rotary import rotary_periods

DECODERS = ("setr-naive", "setr-pup", "setr-mla", "segmenter-linear", "segmenter-mask")
HEADS = ("conv", "setr-k1", "setr-k3", "fcn")
# what sets a family's backbone apart from ViT's: registers among the prefix tokens, SwiGLU, rotary positions
BACKBONES: dict[str, dict[str, Any]] = {
    "registers": {"prefix": 5, "gated": True, "activation": Activation(kind="silu")},
    "rotary": {"prefix": 5, "rotary": rotary_periods(32)},
    "rotary-gated": {"prefix": 1, "rotary": rotary_periods(32), "gated": True, "activation": Activation(kind="silu")},
}


def small_head(kind: str, layer: int) -> HeadConfig:
    """The paper's 1×1 convolution, SETR's auxiliary heads (kernel 1, 3), or an FCN head that also sees its input. `lens`: a norm
    and the 1×1 convolution behind a lens, affine after layer 4 and of two layers elsewhere. `corrected`: a lens and a
    correction of the next block, affine after layer 4. `neighbours`: a lens that sees 5×5 patches after layer 4 and 3×3
    elsewhere; such models have a refinement too, where the decoder reads the last layer alone."""
    return {
        "conv": HeadConfig(layer=layer),
        "setr-k1": HeadConfig(layer=layer, norm=True, num_convs=1, kernel=1, channels=24),
        "setr-k3": HeadConfig(layer=layer, norm=True, num_convs=2, kernel=3, channels=24),
        "fcn": HeadConfig(layer=layer, num_convs=1, kernel=3, channels=24, concat=True),
        "lens": HeadConfig(layer=layer, norm=True, lens=LensConfig(hidden=0 if layer == 4 else 16)),
        "corrected": HeadConfig(
            layer=layer, norm=True, lens=LensConfig(), correction=CorrectionConfig(hidden=0 if layer == 4 else 16)
        ),
        "neighbours": HeadConfig(layer=layer, norm=True, lens=LensConfig(hidden=16, kernel=5 if layer == 4 else 3)),
    }[kind]


def small_decoder(kind: str, depth: int, taps: tuple[int, ...] | None = None) -> DecoderConfig:
    """A narrow decoder. Those of several layers tap one with a decision (2), and layers between and after decisions (2, 4),
    unless told otherwise."""
    if kind == "setr-naive":
        return SetrUpDecoder(kind="setr-naive", num_convs=1, kernel=1, channels=32, up_scale=4)
    if kind == "setr-pup":
        return SetrUpDecoder(kind="setr-pup", num_convs=2, kernel=3, channels=32, up_scale=2)
    if kind == "setr-mla":
        return SetrMlaDecoder(taps=taps or (2, 3, depth - 1, depth), channels=32, head_channels=16)
    if kind == "segmenter-mask":
        return SegmenterMaskDecoder(embed_dim=64, layers=2, heads=2, mlp_dim=128)
    if kind == "eomt":
        return EomtDecoder(queries=5, blocks=2)
    if kind == "segmenter-linear-taps":  # DINOv2's head on four layers
        return SegmenterLinearDecoder(taps=taps or (2, 3, depth - 1, depth))
    assert kind == "segmenter-linear", kind
    return SegmenterLinearDecoder()


def small_config(
    decoder_kind: str = "setr-naive",
    prefix: int = 1,
    head: str = "conv",
    *,
    layers: tuple[int, ...] = (2, 4),
    depth: int = 6,
    embed_dim: int = 64,
    image_size: tuple[int, int] = (64, 96),
    taps: tuple[int, ...] | None = None,
    family: str | None = None,
    **changes: Any,
) -> ModelConfig:
    """A segmenter of 4×6 patches, 6 layers and 7 classes, with decisions after `layers` and ξ = 0.5 at each. `head`: as
    small_head's, with "-unmerged" behind it for a model without token merging, or with "-cells" for one that merges by cells of
    3×3 patches, the last ones of 1×3. `family`: one of BACKBONES."""
    kind = head.removesuffix("-unmerged").removesuffix("-cells")
    settings = {
        "embed_dim": embed_dim,
        "depth": depth,
        "heads": embed_dim // 32,
        "mlp_dim": 2 * embed_dim,
        "prefix": prefix,
        "final_norm": decoder_kind.startswith(("segmenter", "eomt")),
    }
    refined = kind == "neighbours" and layers and decoder_kind not in ("eomt", "setr-mla", "segmenter-linear-taps")
    backbone = BackboneConfig(**settings | (BACKBONES[family] if family else {}))
    given: dict[str, Any] = {
        "image_size": image_size,
        "classes": 7,
        "backbone": backbone,
        "decoder": small_decoder(decoder_kind, depth, taps),
        "decisions": tuple(small_head(kind, layer) for layer in layers),
        "merge": kind == head,
        "merge_cells": 3 if head.endswith("-cells") else 0,
        "thresholds": (0.5,) * len(layers),
        "refinement": RefinementConfig(hidden=24, kernel=3) if refined else None,
    }
    return ModelConfig(**{**given, **changes})


def randomised(config: ModelConfig, seed: int = 0) -> DoViT:
    """A model in evaluation mode in which no parameter has a special value and confidences spread over (0, 1)."""
    model = DoViT(config).eval().requires_grad_(False)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=noise)
            if name.endswith("bias"):
                parameter.copy_(0.1 * values)
            elif parameter.ndim > 1 and name.endswith("weight"):
                fan_in = parameter[0].numel()
                gain = 2.0 if name.endswith("classify.weight") else 1.0
                parameter.copy_(values * gain / math.sqrt(fan_in))
            elif name.endswith("weight"):  # norms
                parameter.copy_(1 + 0.2 * values)
            else:  # embeddings
                parameter.copy_(values)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=noise))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=noise))
    return model


def random_images(config: ModelConfig, batch: int = 1, seed: int = 0) -> Tensor:
    """[B, H, W, 3] uint8: coarse coloured squares and noise, so that patches differ as well as pixels."""
    noise = torch.Generator().manual_seed(seed)
    (h, w), patch = config.grid, config.backbone.patch
    squares = torch.randint(0, 200, (batch, h, w, 3), generator=noise)
    squares = squares.repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)
    return (squares + torch.randint(0, 56, squares.shape, generator=noise)).to(torch.uint8)


@torch.no_grad()
def spreading_thresholds(
    model: DoViT, images: Tensor, keep: tuple[float, ...] | None = None, capacities: list[int] | None = None
) -> tuple[float, ...]:
    """ξ per decision, so that about `keep` (default 0.7 each) of the tokens that are left stay.

    Each lies in the middle of the widest gap between confidences thereabouts: no rounding error can turn a decision.
    """
    count = len(model.config.decisions)
    found: list[float] = []
    for number, share in enumerate(keep or (0.7,) * count):
        trial = (*found, *[2.0] * (count - number))
        seen = [d[number].confidence.flatten() for d in model(images, trial, capacities).decisions]
        q = torch.cat(seen).double().sort().values
        middle = share * (len(q) - 1)
        first = max(0, math.floor(middle - 0.1 * len(q)))
        window = q[first : math.ceil(middle + 0.1 * len(q)) + 2]
        widest = int(window.diff().argmax())
        found.append(float(window[widest : widest + 2].mean()))
    return tuple(found)
