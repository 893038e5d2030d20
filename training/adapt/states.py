"""Where the tokens of some images are in a model with token pass: read from disk and written back, decision by decision.

Beside a state lies what a decoder that also reads earlier layers has read so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dovit.export.checkpoints.own import system_errors
from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState, decide, gather, reconstruct, with_tokens
from dovit.runtime.errors import DovitError
from dovit.runtime.files import unwritten

LESS = ", or lower --limit"  # what to do about a full disk, beside freeing some space


class States:
    """A TokenState of one image each, and the full sequences of the decoder's earlier layers, in a file each; tokens are float16
    there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, image: int, state: TokenState, taps: Sequence[Tensor] = ()) -> None:
        """`taps`: [1, N, E] of each layer so far that the decoder reads. Raises DovitError where it cannot be written, or a value
        does not fit float16."""
        halves = [tokens.half() for tokens in (state.tokens, state.full, *taps)]
        if not all(tokens.isfinite().all() for tokens in halves):
            raise DovitError(
                "tokens between two decisions are beyond float16 (65504) or not finite: this model cannot be adapted"
            )
        try:
            rest = state.index, state.stopped_sum, state.stopped_count
            # an open file: given a name, torch does not say why it could not write
            with system_errors(), self._file(image).open("wb") as stream:
                torch.save((*rest, *halves), stream)
        except OSError as error:
            raise unwritten(self._folder, error, LESS) from None

    def get(self, image: int) -> TokenState:
        """Tokens as float32."""
        index, total, count, tokens, full, *_ = torch.load(self._file(image), weights_only=True)
        return TokenState(tokens.float(), index, full.float(), total, count)

    def taps(self, image: int) -> list[Tensor]:
        """[1, N, E] float32 of each layer so far that the decoder reads."""
        return [tap.float() for tap in torch.load(self._file(image), weights_only=True)[5:]]

    def _file(self, image: int) -> Path:
        return self._folder / f"{image}.pt"


@torch.no_grad()
def pass_decision(model: DoViT, number: int, states: States, images: Sequence[int]) -> None:
    """Move the states on: through decision `number` (from 0) at the model's own ξ, and the layers of the block after it."""
    config = model.config
    for image in images:
        state = states.get(image)
        if not state.index.shape[1]:  # an earlier decision has stopped every token: the model ends there
            continue
        seen = model.through_lens(number, state)
        keep = decide(model.confidence(number, seen), config.thresholds[number])
        state = gather(state, keep, config.prefix, seen.tokens, merge=config.merge, cells=config.cells)
        context, taps = model.backbone.context(state.index, merged=True), states.taps(image) if config.taps else []
        for layer in config.blocks[number + 1] if keep.shape[1] else ():
            state = with_tokens(state, model.backbone.layers[layer](state.tokens, *context))
            if layer + 1 in config.taps:
                taps.append(reconstruct(state, config.prefix))
        states.put(image, state, taps)


@torch.no_grad()
def correct(model: DoViT, number: int, states: States, images: Sequence[int]) -> None:
    """Replace tokens by what the correction of decision `number` (from 0) makes of them."""
    for image in images:
        state = states.get(image)
        states.put(image, with_tokens(state, model.corrections[number](state.tokens)))
