"""DoViT: a segmenter whose easy tokens stop at decision layers.

    image ─▶ embed ─▶ block 1 ─▶ head 1 ─▶ decide ─▶ gather ─▶ block 2 ─▶ … ─▶ block D+1 ─▶ reconstruct ─▶ decoder

Read `token_pass.py` beside this file for the four functions between the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model import config as configs
from dovit.export.model.config import ModelConfig
from dovit.export.model.eomt import Eomt
from dovit.export.model.heads import DecisionHead
from dovit.export.model.lens import Correction, Lens, Refinement
from dovit.export.model.segmenter import SegmenterLinear, SegmenterMask
from dovit.export.model.setr import SetrMla, SetrUp
from dovit.export.model.token_pass import (
    TokenState,
    add_cells,
    confidence,
    decide,
    gather,
    keep_least_confident,
    reconstruct,
    with_tokens,
)
from dovit.export.model.vit import Backbone


@dataclass(frozen=True)
class Decision:
    """What one decision saw and said."""

    confidence: Tensor  # [B, M] float32
    index: Tensor  # [B, M] int32: the positions of those M tokens
    kept: Tensor  # [B, K] int32: the positions of the tokens that stay


@dataclass(frozen=True)
class Output:
    """A forward pass: logits [B, C, h', w'] at the decoder's own resolution, and every decision on the way.

    `decisions` has one tuple an image group: `exact` runs a batch image by image, since their counts differ.
    """

    logits: Tensor
    decisions: tuple[tuple[Decision, ...], ...]


# (number of a decision from 0, the state before it with its tokens as its head reads them: through the lens, if there is one)
# → (q [B, M] float32, which of the M stay: int64 [B, K], ascending)
Policy = Callable[[int, TokenState], tuple[Tensor, Tensor]]


# parts of a DoViT, by name, that the dense model does not have
TOKEN_PASS = "heads", "lenses", "corrections", "refinement"


def is_of_token_pass(name: str) -> bool:
    """Whether a weight of a DoViT, by its name, belongs to one of `TOKEN_PASS`."""
    return name.partition(".")[0] in TOKEN_PASS


def _decoder(config: ModelConfig) -> nn.Module:
    dim, classes, decoder = config.backbone.embed_dim, config.classes, config.decoder
    match decoder:
        case configs.SetrUpDecoder():
            return SetrUp(decoder, dim, classes)
        case configs.SetrMlaDecoder():
            return SetrMla(decoder, dim, classes)
        case configs.SegmenterMaskDecoder():
            return SegmenterMask(decoder, dim, classes)
        case configs.SegmenterLinearDecoder():
            return SegmenterLinear(decoder, dim, classes)
        case configs.EomtDecoder():
            return Eomt(decoder, dim, classes, config.image_size)
        case _:
            assert_never(decoder)


class DoViT(nn.Module):
    """The reference segmenter with token pass. Without decision layers it is the plain dense segmenter."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.grid, config.cells)
        self.heads = nn.ModuleList(
            DecisionHead(head, config.backbone.embed_dim, config.classes) for head in config.decisions
        )
        self.lenses = nn.ModuleList(
            nn.Identity()
            if head.lens is None
            else Lens(head.lens, config.backbone.embed_dim, config.prefix, config.grid)
            for head in config.decisions
        )
        backbone = config.backbone
        self.corrections = nn.ModuleList(
            nn.Identity()
            if head.correction is None
            else Correction(head.correction, backbone.embed_dim, config.prefix, config.tokens)
            for head in config.decisions
        )
        self.refinement = (
            nn.Identity()
            if config.refinement is None
            else Refinement(config.refinement, backbone.embed_dim, config.grid)
        )
        self.decoder = _decoder(config)
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def forward(
        self,
        image: Tensor,
        thresholds: Sequence[float] | None = None,
        capacities: Sequence[int] | None = None,
        keeps: Sequence[Tensor] | None = None,
    ) -> Output:
        """Segment `image` [B, H, W, 3] uint8 RGB of the config's size.

        `thresholds`: ξ of each decision, default the config's. `capacities`: the `bucketed` schedule's, ascending and
        ending in N; None is the `exact` schedule. `keeps`: decisions to follow instead, each int64 [B, K] as `decide`
        returns them.
        """
        if capacities is None and keeps is None and len(image) > 1:
            outputs = [self(one[None], thresholds) for one in image]
            return Output(torch.cat([o.logits for o in outputs]), tuple(o.decisions[0] for o in outputs))
        xi = self.config.thresholds if thresholds is None else thresholds

        def policy(number: int, seen: TokenState) -> tuple[Tensor, Tensor]:
            q = self.confidence(number, seen)
            return q, decide(q, xi[number], capacities) if keeps is None else keeps[number]

        return self.follow(image, policy)

    def follow(self, image: Tensor, policy: Policy) -> Output:
        """The same for `image` [B, H, W, 3], with `policy` deciding; `decisions` then has one tuple for the batch.

        Raises ValueError where the policy keeps fewer tokens than the config's `least_kept`."""
        prefix = self.config.backbone.prefix
        taps: list[Tensor] = []
        decisions = []
        state = TokenState.start(self.embed(image), prefix)
        for number, block in enumerate(self.config.blocks):
            context = self.backbone.context(state.index, merged=number > 0)
            for layer in block:
                if layer == self.config.joining_layer:
                    joined, *turned = cast(Eomt, self.decoder).join(state.tokens, *context)
                    state, context = with_tokens(state, joined), tuple(turned)
                state = with_tokens(state, self.backbone.layers[layer](state.tokens, *context))
                if layer + 1 in self.config.taps:
                    taps.append(reconstruct(state, prefix))
            if number == 0 and self.config.cells is not None:
                state, prefix = add_cells(state, prefix, self.config.cells), self.config.prefix
            if number:
                state = with_tokens(state, self.corrections[number - 1](state.tokens))
            if number < len(self.heads):
                seen = self.through_lens(number, state)
                q, keep = policy(number, seen)
                decisions.append(Decision(q, state.index, state.index.gather(1, keep)))
                if keep.shape[1] < self.config.least_kept:
                    raise ValueError("the layers that EoMT's queries join need at least one token")
                state = gather(state, keep, prefix, seen.tokens, merge=self.config.merge, cells=self.config.cells)
                if keep.shape[1] == 0:  # nothing is left to compute: the backbone ends early
                    break
        if self.config.joining_layer is not None:
            tokens, *taps = self.leave(state.tokens)
            state = with_tokens(state, tokens)
        full = self.refinement(reconstruct(state, prefix))
        taps += [full] * (len(self.config.taps) - len(taps))
        return Output(self.decode(full, taps), (tuple(decisions),))

    def embed(self, image: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 → tokens [B, P+N, E]."""
        pixels = (image.to(self.mean.dtype) - self.mean) / self.std
        return self.backbone.embed(pixels.permute(0, 3, 1, 2))

    def through_lens(self, number: int, state: TokenState) -> TokenState:
        """`state` with its tokens as the lens of decision `number` (from 0) makes them; as it is where there is none."""
        lens = self.lenses[number]
        if not isinstance(lens, Lens):
            return state
        seen = with_tokens(state, lens(state.tokens))
        if lens.neighbours is None:
            return seen
        return with_tokens(state, lens.neighbours(seen.tokens, reconstruct(seen, self.config.prefix), state.index))

    @property
    def of_token_pass(self) -> list[nn.Module]:
        """Those of `TOKEN_PASS` that the model has."""
        return [module for name, module in self.named_children() if name in TOKEN_PASS]

    def confidence(self, number: int, seen: TokenState) -> Tensor:
        """q [B, M] of decision `number` (from 0) for the tokens of a state that have gone `through_lens`."""
        prefix = self.config.prefix
        if not self.config.decisions[number].on_map:  # kernel 1: each token by itself, so only those that are kept
            patches = seen.tokens[:, prefix:]  # [B, M, E]
            kept = patches.transpose(1, 2)[..., None]  # [B, E, M, 1]
            q = confidence(self.heads[number](kept)[..., 0])
        else:
            q = confidence(self.head_logits(number, seen).flatten(2)).gather(1, seen.index.long())
        return keep_least_confident(q, self.config.least_kept)

    def head_logits(self, number: int, seen: TokenState) -> Tensor:
        """Logits [B, C, h, w] of head `number` (from 0) for every token, stopped or not (2), after `through_lens`."""
        return self.heads[number](self._as_map(reconstruct(seen, self.config.prefix)))

    def leave(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """After the last layer of an EoMT: tokens [B, Q+P+M, E] → those without the queries [B, P+M, E], and what the queries
        predict: probabilities of the classes [B, C, Q] and mask embeddings [B, Q, E]."""
        queries = self.config.queries
        classes, masks = cast(Eomt, self.decoder).predict(self.backbone.norm(tokens[:, :queries]))
        return tokens[:, queries:], classes, masks

    def decode(self, full: Tensor, taps: list[Tensor], resize_masks: bool = True) -> Tensor:
        """The full sequence and the tapped ones, each [B, N, E] → logits [B, C, h', w']. In the place of taps an EoMT takes
        what its queries predict, and `resize_masks` says whether its logits have the size of the image or of its masks."""
        if isinstance(self.config.decoder, configs.EomtDecoder):
            return self.decoder(self._as_map(self.backbone.norm(full)), taps, resize_masks)
        if isinstance(
            self.config.decoder, configs.SegmenterLinearDecoder
        ):  # SETR-MLA has norms of its own for its taps
            taps = [self.backbone.norm(tap) for tap in taps]
        return self.decoder(self._as_map(self.backbone.norm(full)), [self._as_map(tap) for tap in taps])

    def resize_logits(self, logits: Tensor) -> Tensor:
        """[B, C, h', w'] → [B, C, H, W], bilinear."""
        if logits.shape[2:] == self.config.image_size:
            return logits
        return F.interpolate(logits, self.config.image_size, mode="bilinear", align_corners=False)

    def _as_map(self, full: Tensor) -> Tensor:
        return full.transpose(1, 2).unflatten(2, self.config.grid)  # [B, N, E] → [B, E, h, w]
