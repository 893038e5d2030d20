"""What a model is: everything that its weights do not say. Stored in checkpoints as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dovit.export.model.bounds import (
    MAX_LAYERS,
    MAX_LOGITS,
    MAX_PREFIX,
    MAX_TOKENS,
    Byte,
    CellSide,
    Classes,
    ClassName,
    Convolutions,
    Deviation,
    Dilation,
    Epsilon,
    Kernel,
    Layer,
    Mean,
    Patch,
    Period,
    Scale,
    Side,
    Slope,
    Threshold,
    Width,
)
from dovit.export.model.token_pass import Cells
from dovit.runtime.bundle.check import MAX_CLASSES, MAX_PIXELS
from dovit.runtime.bundle.manifest import Mode

# embed_dim, layers, attention heads, as timm, DeiT and mmsegmentation name them; heads are always 64 wide
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "heads": 16},
}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


def paper_decision_layers(depth: int) -> tuple[int, ...]:
    """The paper's decision layers, counted from 1: (3, 6, 9) of 12, (6, 12, 18) of 24; quarters of any other depth."""
    return tuple(sorted({depth * k // 4 for k in (1, 2, 3)} - {0, depth}))


class Part(BaseModel):
    """A part of a configuration: immutable, without unknown fields, and with values of the types that it names. A number in
    quotes, or a 1 for `true`, is refused rather than taken for what it may have meant. JSON and YAML write tuples as lists."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _with_tuples(cls, content: Any) -> Any:
        return {key: _as_tuple(value) for key, value in content.items()} if isinstance(content, dict) else content


def _as_tuple(value: Any, depth: int = 2) -> Any:
    """Lists within lists as well, as of a palette; nothing is nested more deeply than that."""
    return tuple(_as_tuple(one, depth - 1) for one in value) if isinstance(value, list) and depth else value


class Activation(Part):
    """An activation function; `slope` is LeakyReLU's for negative values."""

    kind: Literal["gelu", "gelu_tanh", "silu", "relu", "leaky_relu", "none"]
    slope: Slope = 0.01


class ConvConfig(Part):
    """What follows every convolution of a decoder or head: batch norm, where there is one, and an activation."""

    batch_norm: bool = True
    bn_eps: Epsilon = 1e-5
    activation: Activation = Activation(kind="relu")


class BackboneConfig(Part):
    """A plain pre-norm ViT. `prefix` tokens (class, distillation, registers) precede the patch tokens; 0 where there is
    none. The first of them is the class token, into which stopped tokens are merged.

    Learned positions are added to the embedded patches. With `rotary`, the periods of each head's channels, there are none:
    queries and keys of the patches are turned in every layer instead (DINOv3, see rotary.py). `gated`: the MLP is
    act(gate(x)) · up(x), each `mlp_dim` wide (SwiGLU, with SiLU).

    LayerNorms beside those of the layers: `patch_norm` on the embedded patches, before positions are added; `pre_norm`
    before the first layer; `final_norm` after the last. `norm_eps` is that of all of them.
    """

    embed_dim: Width
    depth: Layer
    heads: Width
    mlp_dim: Width
    patch: Patch = 16
    prefix: int = Field(default=1, ge=0, le=MAX_PREFIX)
    norm_eps: Epsilon = 1e-6
    patch_norm: bool = False
    pre_norm: bool = False
    final_norm: bool = False
    activation: Activation = Activation(kind="gelu")
    gated: bool = False
    rotary: tuple[Period, ...] | None = Field(default=None, max_length=1 << 13)

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> BackboneConfig:
        """The backbone of a known size, `tiny`, `small`, `base` or `large`, with `changes` on top."""
        known = SIZES[size]
        return cls(**{**known, "mlp_dim": 4 * known["embed_dim"], **changes})

    @model_validator(mode="after")
    def _heads_divide(self) -> BackboneConfig:
        if self.embed_dim % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide {self.embed_dim} channels")
        if self.rotary is not None and 4 * len(self.rotary) != self.head_dim:
            raise ValueError(
                f"{len(self.rotary)} rotary periods for heads of {self.head_dim} channels, which need a quarter"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""
        return self.embed_dim // self.heads


class FcnConfig(Part):
    """num_convs × (conv of `kernel` and `dilation`, BN, ReLU) → [concat with the input, conv] → 1×1 conv."""

    num_convs: Convolutions = 0
    kernel: Kernel = 1
    channels: Width = 256
    concat: bool = False
    dilation: Dilation = 1
    conv: ConvConfig = ConvConfig()


class _TokenwiseConfig(Part):
    """A map of single tokens, x → A x + b with an E×E matrix and a bias; with `hidden` channels
    x → A x + b + W₂ gelu(W₁ x + b₁)."""

    hidden: int = Field(default=0, ge=0, le=1 << 15)


class CorrectionConfig(_TokenwiseConfig):
    """The `correction` of a decision, a map of single tokens."""


class LensConfig(_TokenwiseConfig):
    """The `lens` of a decision, a map of single tokens, and with a `kernel` larger than 1 a map that also sees the patches around
    a token, in so many rows and columns: z = A x + b of each token, u = LayerNorm(z), then z + W₂ gelu(W₁ (u + D u) + b₁),
    where D is a depthwise convolution over the grid of patches. Where a patch has stopped before, z is what the decoder reads
    of it."""

    # left out of files where it is 1, so that they stay readable for versions without it
    kernel: Kernel = Field(default=1, exclude_if=lambda kernel: kernel == 1)

    @model_validator(mode="after")
    def _kernel_has_channels(self) -> LensConfig:
        if self.kernel > 1 and not self.hidden:
            raise ValueError(f"a lens of kernel {self.kernel} needs `hidden` channels, and has 0")
        return self


class RefinementConfig(Part):
    """The `refinement` of the full sequence, which sees `kernel` rows and columns of patches around a token:
    x + W₂ gelu(W₁ (u + D u) + b₁), where u = LayerNorm(x) and D is a depthwise convolution over the grid of patches."""

    hidden: int = Field(ge=1, le=1 << 15)
    kernel: Kernel


class HeadConfig(FcnConfig):
    """A decision head after layer `layer` (from 1): [LayerNorm] → num_convs × (conv, BN, ReLU) → [concat] → 1×1 conv.

    The paper's head is `num_convs=0`: a single 1×1 convolution. SETR's auxiliary heads have a norm and 1 or 2
    convolutions of kernel 1 or 3; FCN heads have none to two, and may convolve their input and output together.
    `lens`: what stopping tokens pass through on their way to the decoder; the head reads what it makes of a token.
    `correction`: what the patch tokens that stay pass through at the end of the next block, so that they are as they would have
    been in attention to all tokens; x + r (C x - x), where r is the share of all N tokens that has stopped.
    """

    layer: Layer
    norm: bool = False
    norm_eps: Epsilon = 1e-6
    # left out of files where there is none, so that they stay readable for versions that know no lens
    lens: LensConfig | None = Field(default=None, exclude_if=lambda lens: lens is None)
    correction: CorrectionConfig | None = Field(default=None, exclude_if=lambda correction: correction is None)

    @property
    def on_map(self) -> bool:
        """Whether the head looks at a token's neighbours and so needs the reconstructed map."""
        return self.kernel > 1 and (self.num_convs > 0 or self.concat)


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
    taps: tuple[Layer, ...] = Field(min_length=1, max_length=16)
    channels: Width = 256
    head_channels: Width = 128
    up_scale: Scale = 4
    norm_eps: Epsilon = 1e-6
    order: tuple[int, ...] | None = Field(default=None, max_length=16)
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
    taps: tuple[Layer, ...] = Field(default=(), max_length=16)

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


class ModelConfig(Part):
    """A whole segmenter. `image_size` and `slide_stride` are (height, width) in pixels; mean and std are RGB, 0…255.

    `mode` and `keep_ratio` say how an image of another size is run by default: see `dovit.runtime.bundle.manifest.Manifest`.
    `merge`: token merging (8). Off in the paper's ablation, and for frozen models, whose layers never saw a merged class token.
    `merge_cells`: side in patches of the cells whose stopped tokens are merged, in the place of `merge`; 0: none are.
    `refinement`: what the full sequence passes through on its way to the decoder.
    """

    image_size: tuple[Side, Side]
    classes: Classes
    backbone: BackboneConfig
    decoder: DecoderConfig
    decisions: tuple[HeadConfig, ...] = Field(default=(), max_length=MAX_LAYERS)
    thresholds: tuple[Threshold, ...] = Field(default=(), max_length=MAX_LAYERS)
    mean: tuple[Mean, Mean, Mean] = IMAGENET["mean"]
    std: tuple[Deviation, Deviation, Deviation] = IMAGENET["std"]
    slide_stride: tuple[Side, Side] | None = None
    mode: Mode = "whole"
    keep_ratio: bool = False
    merge: bool = True
    # left out of files where there are none, so that they stay readable for versions that know no cells
    merge_cells: CellSide = Field(default=0, exclude_if=lambda side: not side)
    # left out where there is none, as lenses are
    refinement: RefinementConfig | None = Field(default=None, exclude_if=lambda refinement: refinement is None)
    class_names: tuple[ClassName, ...] | None = Field(default=None, max_length=MAX_CLASSES)
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = Field(default=None, max_length=MAX_CLASSES)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        patch = self.backbone.patch
        if any(side < patch or side % patch for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not divisible by the patch size {patch}")
        layers = [head.layer for head in self.decisions]
        if layers != sorted(set(layers)) or any(layer >= self.backbone.depth for layer in layers):
            raise ValueError(f"decision layers {layers} must ascend and lie before layer {self.backbone.depth}")
        if len(self.thresholds) != len(layers):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(layers)} decision layers")
        stride = self.slide_stride or self.image_size
        if any(not 0 < step <= side for step, side in zip(stride, self.image_size, strict=True)):
            raise ValueError(
                f"windows of {self.image_size[0]}×{self.image_size[1]} every {stride[0]}×{stride[1]} pixels leave gaps: "
                f"the stride is at most the window"
            )
        for name in ("class_names", "palette"):
            given = getattr(self, name)
            if given is not None and len(given) != self.classes:
                raise ValueError(f"{len(given)} entries in {name} for {self.classes} classes")
        self._check_decoder()
        self._check_lenses()
        if self.refinement is not None and not (self.decisions and not self.taps and not self.queries):
            raise ValueError(
                "a refinement is for models with decisions, and decoders that read the last layer's patch tokens alone"
            )
        if self.merge_cells and self.merge:
            raise ValueError(
                "stopped tokens are merged into the class token (merge) or by cell (merge_cells), not both"
            )
        if self.merge_cells and self.queries:
            raise ValueError(
                "stopped tokens of an EoMT cannot be merged by cell: its queries attend to the patch tokens"
            )
        if self.prefix > MAX_PREFIX:
            raise ValueError(
                f"cells of {self.merge_cells}×{self.merge_cells} patches make {self.prefix} tokens before those of "
                f"{self.grid[0]}×{self.grid[1]} patches, and {MAX_PREFIX} are the most: make the cells larger"
            )
        return self

    def _check_lenses(self) -> None:
        for head in self.decisions:
            if head.lens is not None and self.taps:
                raise ValueError(
                    f"a lens maps tokens to the last layer's, and this decoder also reads layers {self.taps}: lenses are for "
                    f"decoders that read the last layer alone"
                )
            if head.correction is not None and (self.taps or self.queries):
                raise ValueError(
                    "corrections are for decoders that read the last layer's patch tokens alone, and this one also reads earlier "
                    "layers or queries"
                )
            if head.lens is not None and head.on_map:
                raise ValueError(
                    f"the head after layer {head.layer} has a kernel of {head.kernel} and a lens: a lens goes with a head of "
                    f"kernel 1, which reads each token by itself"
                )

    def _check_decoder(self) -> None:
        """Its layers are there, and what it makes has a size that can be."""
        decoder, scale, taps = self.decoder, 1, _taps(self.decoder)
        if self.tokens > MAX_TOKENS:
            raise ValueError(f"image size {self.image_size} makes {self.tokens} tokens, and {MAX_TOKENS} are the most")
        if taps and (list(taps) != sorted(set(taps)) or taps[-1] != self.backbone.depth):
            raise ValueError(f"the decoder's taps {taps} must ascend and end with layer {self.backbone.depth}")
        if isinstance(decoder, SetrMlaDecoder):
            scale = decoder.up_scale
            if len(decoder.inputs) != len(taps) or any(not 0 <= k < len(taps) for k in decoder.inputs):
                raise ValueError(
                    f"the decoder's order {decoder.order} must name {len(taps)} outputs of the neck, from 0"
                )
        elif isinstance(decoder, SetrUpDecoder):
            scale = decoder.up_scale**decoder.num_convs
        elif isinstance(decoder, EomtDecoder):
            scale = self._check_queries(decoder)
        elif isinstance(decoder, SegmenterMaskDecoder) and decoder.embed_dim % decoder.heads:
            raise ValueError(
                f"{decoder.heads} attention heads do not divide the decoder's {decoder.embed_dim} channels"
            )
        if self.classes * self.tokens * scale**2 > MAX_LOGITS or max(self.grid) * scale > MAX_PIXELS:
            height, width = self.grid[0] * scale, self.grid[1] * scale
            raise ValueError(f"the decoder makes logits of {self.classes}×{height}×{width}, more than can be")

    def _check_queries(self, decoder: EomtDecoder) -> int:
        """Returns the factor by which logits are larger than the grid of patches."""
        depth, patch = self.backbone.depth, self.backbone.patch
        if decoder.blocks > depth:
            raise ValueError(f"queries cannot join before the last {decoder.blocks} of {depth} layers")
        if self.decisions and self.decisions[-1].layer > depth - decoder.blocks:
            raise ValueError(
                f"a decision after layer {self.decisions[-1].layer} lies behind layer {depth - decoder.blocks}, after which "
                f"EoMT's queries join"
            )
        if decoder.queries * self.tokens * max(patch, 1 << decoder.upscale) ** 2 > MAX_LOGITS:
            raise ValueError(f"masks of {decoder.queries} queries at {self.image_size} pixels are more than can be")
        return patch

    @property
    def joining_layer(self) -> int | None:
        """The layer (from 0) before which EoMT's queries join the tokens; None where there are none."""
        return self.backbone.depth - self.decoder.blocks if isinstance(self.decoder, EomtDecoder) else None

    @property
    def queries(self) -> int:
        """How many queries join the tokens."""
        return self.decoder.queries if isinstance(self.decoder, EomtDecoder) else 0

    @property
    def least_kept(self) -> int:
        """How many tokens a decision keeps at least: with queries 1, since the layers after it have to run."""
        return int(isinstance(self.decoder, EomtDecoder))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): patches down and across."""
        return self.image_size[0] // self.backbone.patch, self.image_size[1] // self.backbone.patch

    @property
    def tokens(self) -> int:
        """N = h·w patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def without_token_pass(self) -> ModelConfig:
        """The dense model: no decisions, and nothing that goes with them."""
        return self.model_copy(update={"decisions": (), "thresholds": (), "refinement": None})

    @property
    def cells(self) -> Cells | None:
        """The cells whose stopped tokens are merged; None where there are none."""
        return Cells(self.grid, self.merge_cells) if self.merge_cells and self.decisions else None

    @property
    def prefix(self) -> int:
        """The tokens before the patches that one block hands on to the next: those of the backbone, and the merged ones."""
        return self.backbone.prefix + (self.cells.count if self.cells is not None else 0)

    @property
    def blocks(self) -> tuple[range, ...]:
        """The layers (from 0) of blocks 1…D+1: each of the first D ends with a decision layer."""
        ends = [head.layer for head in self.decisions] + [self.backbone.depth]
        return tuple(range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers (from 1) that the decoder taps before the last one."""
        return tuple(layer for layer in _taps(self.decoder) if layer < self.backbone.depth)


def _taps(decoder: DecoderConfig) -> tuple[int, ...]:
    """The layers (from 1, the last one included) whose outputs a decoder takes; empty where it takes the last alone."""
    return decoder.taps if isinstance(decoder, SetrMlaDecoder | SegmenterLinearDecoder) else ()
