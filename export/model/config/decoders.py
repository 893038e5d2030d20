"""The decoders' configurations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dovit.export.model.config.bounds import MAX_PREFIX, MAX_TAPS, Convolutions, Epsilon, Kernel, Layer, Scale, Width
from dovit.export.model.config.parts import Activation, ConvConfig, FcnConfig, Part


class SetrUpDecoder(Part):
    """SETR-Naive and SETR-PUP: LayerNorm → num_convs × (conv, BN, ReLU, bilinear ×up_scale) → 1×1 conv."""

    kind: Literal["setr-naive", "setr-pup"]
    num_convs: Convolutions = 1
    kernel: Kernel = 1
    channels: Width = 256
    up_scale: Scale = 4
    norm_eps: Epsilon = 1e-6
    conv: ConvConfig = ConvConfig()


class SetrMlaDecoder(Part):
    """SETR-MLA: the outputs of four `taps` (layers from 1), a top-down neck, four small heads, ×up_scale, 1×1 conv.

    `order`: which output of the neck each head takes, from 0, the deepest; default all in order. `conv` is of the neck,
    `head_conv` of the heads.
    """

    kind: Literal["setr-mla"] = "setr-mla"
    taps: tuple[Layer, ...] = Field(min_length=1, max_length=MAX_TAPS)
    channels: Width = 256
    head_channels: Width = 128
    up_scale: Scale = 4
    norm_eps: Epsilon = 1e-6
    order: tuple[int, ...] | None = Field(default=None, max_length=MAX_TAPS)
    conv: ConvConfig = ConvConfig()
    head_conv: ConvConfig = ConvConfig()

    @property
    def inputs(self) -> tuple[int, ...]:
        """For each head the output of the neck that it takes."""
        return tuple(range(len(self.taps))) if self.order is None else self.order


class SegmenterLinearDecoder(FcnConfig):
    """Segmenter-Linear: one 1×1 convolution on the final norm's output, or mmsegmentation's FCNHead.

    `taps` (layers from 1, the last one included): the outputs of these layers, each through the final norm, are joined
    along the channels, as in DINOv2's and DINOv3's linear heads on four layers. Empty: the last layer alone.
    """

    kind: Literal["segmenter-linear"] = "segmenter-linear"
    taps: tuple[Layer, ...] = Field(default=(), max_length=MAX_TAPS)

    @property
    def levels(self) -> int:
        """How many layers' outputs are joined."""
        return max(len(self.taps), 1)


class SegmenterMaskDecoder(Part):
    """Segmenter-Mask: class embeddings join the patches for `layers` layers; masks are cosine similarities."""

    kind: Literal["segmenter-mask"] = "segmenter-mask"
    embed_dim: Width
    layers: Layer = 2
    heads: Width
    mlp_dim: Width
    norm_eps: Epsilon = 1e-5
    activation: Activation = Activation(kind="gelu")


class EomtDecoder(Part):
    """EoMT: `queries` join the tokens before the last `blocks` layers of the backbone; each predicts a class and a mask.

    Masks are products with the patches after `upscale` upsamplings by 2 (transposed convolution, `activation`, depthwise
    convolution, LayerNorm with `norm_eps`). Logits are sums over the queries of class probability times mask probability.
    """

    kind: Literal["eomt"] = "eomt"
    queries: int = Field(ge=1, le=MAX_PREFIX)
    blocks: Layer
    upscale: int = Field(default=2, ge=0, le=5)
    norm_eps: Epsilon = 1e-6
    activation: Activation = Activation(kind="gelu")


DecoderConfig = Annotated[
    SetrUpDecoder | SetrMlaDecoder | SegmenterLinearDecoder | SegmenterMaskDecoder | EomtDecoder,
    Field(discriminator="kind"),
]


def taps_of(decoder: DecoderConfig) -> tuple[int, ...]:
    """The layers (from 1, the last one included) whose outputs a decoder takes; empty where it takes the last alone."""
    return decoder.taps if isinstance(decoder, SetrMlaDecoder | SegmenterLinearDecoder) else ()
