"""Multiply-accumulates of a model, step by step, as polynomials in the number of tokens that a step runs on.

The paper counts products with weights: convolutions and linear layers. The true count has the products of activations
with each other as well: QKᵀ and AV of attention, and Segmenter's mask product. Neither has norms, activation functions,
biases or interpolation; the paper's tables have the norms, 0.03 to 0.1 % of the whole (tests/model/test_macs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import assert_never

from dovit.export.model import config as configs
from dovit.export.model.config import FcnConfig, ModelConfig
from dovit.runtime.bundle.macs import StepMacs


def step_macs(config: ModelConfig, per_patch: int | None = None) -> list[StepMacs]:
    """The steps stem (patch embedding, block 1, head 1), block2 … block{D+1}, decoder.

    `per_patch`: MACs of one patch in whatever decides in the place of a decision head (DynamicViT's modules).

    A head of kernel 1 sees the patch tokens among a step's T tokens and not its P prefix tokens: h·(T - P), of which
    -h·P goes into `fixed`.
    """
    backbone = config.backbone
    dim = backbone.embed_dim
    steps = []
    for number, block in enumerate(config.blocks):
        fixed = 3 * backbone.patch**2 * dim * config.tokens if number == 0 else 0
        per_token = len(block) * _layer(dim, backbone.mlp_dim, gated=backbone.gated)
        if number and (correction := config.decisions[number - 1].correction) is not None:
            per_patch_token = dim * dim + 2 * dim * correction.hidden  # prefix tokens are not corrected
            per_token += per_patch_token
            fixed -= per_patch_token * config.prefix
        if number < len(config.decisions):
            head = config.decisions[number]
            of_head = _head(head, dim, config.classes) if per_patch is None else per_patch
            if head.lens is not None:  # every token of the step passes through it, prefix tokens too
                per_token += dim * dim + 2 * dim * head.lens.hidden
                if head.lens.kernel > 1:  # all patches are convolved, and prefix tokens are left out
                    fixed += head.lens.kernel**2 * dim * config.tokens - 2 * dim * head.lens.hidden * config.prefix
            if head.on_map:
                fixed += of_head * config.tokens
            else:
                fixed -= of_head * config.prefix
                per_token += of_head
        step = StepMacs(fixed=fixed, per_token=per_token, per_pair=len(block) * _attention(dim))
        if number == 0 and config.cells is not None:
            step = _before_cells(step, len(block) * _layer(dim, backbone.mlp_dim, gated=backbone.gated), config)
        steps.append(_with_queries(step, config) if number == len(config.decisions) else step)
    return [*steps, _refined(_decoder(config), config)]


def evaluate(steps: Sequence[StepMacs], tokens_per_step: Sequence[int]) -> tuple[int, int]:
    """(paper's count, true count) of one image.

    `tokens_per_step`: the tokens that stem, block2, … run on, prefix tokens included. There may be fewer of them than
    blocks, where nothing was kept and the backbone ended early; the decoder always runs, and on everything.
    """
    if not 1 <= len(tokens_per_step) < len(steps):
        raise ValueError(f"{len(tokens_per_step)} token counts for {len(steps) - 1} blocks")
    counts = [*zip(steps[:-1], tokens_per_step, strict=False), (steps[-1], 0)]
    return sum(step.paper(tokens) for step, tokens in counts), sum(step.true(tokens) for step, tokens in counts)


def _layer(dim: int, hidden: int, *, gated: bool = False) -> int:
    """Of one token in one layer: query, key, value and output projections, and the MLP."""
    return 4 * dim * dim + (3 if gated else 2) * dim * hidden


def _attention(dim: int) -> int:
    """Of one pair of tokens in one layer: its score and its share of the weighted sum, all heads together."""
    return 2 * dim


def _before_cells(step: StepMacs, layers: int, config: ModelConfig) -> StepMacs:
    """The stem of a model that merges tokens by cell: it ends with the merged tokens of all cells, and its layers have run
    without them."""
    tokens, every = config.backbone.prefix + config.tokens, config.prefix + config.tokens
    fixed = step.fixed + layers * tokens + (step.per_token - layers) * every
    return StepMacs(fixed=fixed, fixed_pairs=step.per_pair * tokens * tokens)


def _with_queries(step: StepMacs, config: ModelConfig) -> StepMacs:
    """The last block of an EoMT: T tokens meet Q queries in some of its layers, (T + Q)² pairs in the place of T²."""
    decoder, dim = config.decoder, config.backbone.embed_dim
    if not isinstance(decoder, configs.EomtDecoder):
        return step
    queries, pairs = decoder.queries, decoder.blocks * _attention(dim)
    layers = decoder.blocks * _layer(dim, config.backbone.mlp_dim, gated=config.backbone.gated)
    predicted = 3 * dim * dim + dim * (config.classes + 1)  # the mask head, and the class
    changes = {"fixed": step.fixed + queries * (layers + predicted), "fixed_pairs": pairs * queries * queries}
    return step.model_copy(update=changes | {"per_joined": 2 * pairs * queries})


def _convs(widths: Sequence[int], kernel: int) -> int:
    """Of one position in a row of same-size convolutions."""
    return sum(inputs * outputs for inputs, outputs in pairwise(widths)) * kernel**2


def _head(head: FcnConfig, dim: int, classes: int) -> int:
    """Of one patch in a decision head or a decoder of the same layers."""
    widths = [dim] + [head.channels] * head.num_convs
    macs, last = _convs(widths, head.kernel), widths[-1]
    if head.concat:
        macs += _convs([dim + last, head.channels], head.kernel)
        last = head.channels
    return macs + last * classes


def _refined(decoder: StepMacs, config: ModelConfig) -> StepMacs:
    """With the refinement, whose convolution and perceptron run on all patches."""
    if config.refinement is None:
        return decoder
    per_patch = (config.refinement.kernel**2 + 2 * config.refinement.hidden) * config.backbone.embed_dim
    return decoder.model_copy(update={"fixed": decoder.fixed + per_patch * config.tokens})


def _decoder(config: ModelConfig) -> StepMacs:
    """The decoder runs on all N patches, so nothing in it depends on the number of kept tokens."""
    dim, classes, patches, decoder = config.backbone.embed_dim, config.classes, config.tokens, config.decoder
    match decoder:
        case configs.SetrUpDecoder():
            widths = [dim] + [decoder.channels] * decoder.num_convs
            fixed, positions = 0, patches
            for pair in pairwise(widths):
                fixed += positions * _convs(pair, decoder.kernel)
                positions *= decoder.up_scale**2  # every convolution is followed by upsampling
            return StepMacs(fixed=fixed + positions * widths[-1] * classes)
        case configs.SetrMlaDecoder():
            width, narrow = decoder.channels, decoder.head_channels
            neck = _convs([dim, width], 1) + _convs([width, width], 3)
            head = _convs([width, narrow, narrow], 3) + decoder.up_scale**2 * narrow * classes
            return StepMacs(fixed=patches * (len(decoder.taps) * neck + len(decoder.inputs) * head))
        case configs.SegmenterMaskDecoder():
            width, tokens = decoder.embed_dim, patches + classes  # class embeddings join the patches
            fixed = patches * dim * width + decoder.layers * tokens * _layer(width, decoder.mlp_dim)
            fixed += tokens * width * width  # patches and classes are projected, then multiplied
            pairs = decoder.layers * _attention(width) * tokens * tokens + patches * width * classes
            return StepMacs(fixed=fixed, fixed_pairs=pairs)
        case configs.SegmenterLinearDecoder():
            return StepMacs(fixed=patches * _head(decoder, decoder.levels * dim, classes))
        case configs.EomtDecoder():
            positions, fixed = patches, 0
            for _ in range(decoder.upscale):
                fixed += 4 * positions * dim * dim  # a transposed convolution of kernel 2: four products a position
                positions *= 4
                fixed += positions * 9 * dim  # depthwise
            height, width = config.image_size
            masks = positions * decoder.queries * dim  # patches with mask embeddings, then classes with masks
            return StepMacs(fixed=fixed, fixed_pairs=masks + height * width * decoder.queries * classes)
        case _:
            assert_never(decoder)
