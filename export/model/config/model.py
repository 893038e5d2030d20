"""A whole model's configuration."""

from __future__ import annotations

from pydantic import Field, model_validator

from dovit.export.model.config.backbone import BackboneConfig
from dovit.export.model.config.bounds import (
    MAX_LAYERS,
    MAX_LOGITS,
    MAX_PREFIX,
    MAX_TOKENS,
    Byte,
    CellSide,
    Classes,
    ClassName,
    Deviation,
    Mean,
    Side,
    Threshold,
)
from dovit.export.model.config.decisions import HeadConfig, RefinementConfig
from dovit.export.model.config.decoders import (
    DecoderConfig,
    EomtDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
    taps_of,
)
from dovit.export.model.config.parts import Part
from dovit.export.model.token_pass import Cells
from dovit.runtime.bundle.check import MAX_CLASSES, MAX_PIXELS
from dovit.runtime.bundle.manifest import Mode

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


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
        decoder, scale, taps = self.decoder, 1, taps_of(self.decoder)
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
        return tuple(layer for layer in taps_of(self.decoder) if layer < self.backbone.depth)
