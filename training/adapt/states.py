"""Where the tokens of some images are in a model with token pass: read from disk and written back, decision by decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState, decide, gather, with_tokens
from dovit.runtime.errors import DovitError


class States:
    """A TokenState of one image each, in a file each; tokens are float16 there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, image: int, state: TokenState) -> None:
        """Raises DovitError where it cannot be written, or a value does not fit float16."""
        tensors = state.tokens.half(), state.index, state.full.half(), state.stopped_sum, state.stopped_count
        if not (tensors[0].isfinite().all() and tensors[2].isfinite().all()):
            raise DovitError(
                "tokens between two decisions are beyond float16 (65504) or not finite: this model cannot be adapted"
            )
        try:
            torch.save(tensors, self._folder / f"{image}.pt")
        except (OSError, RuntimeError) as error:  # RuntimeError: what torch makes of a full disk
            raise DovitError(
                f"{self._folder}: tokens cannot be written ({error}); free space, or lower --limit"
            ) from None

    def get(self, image: int) -> TokenState:
        """Tokens as float32."""
        tokens, index, full, total, count = torch.load(self._folder / f"{image}.pt", weights_only=True)
        return TokenState(tokens.float(), index, full.float(), total, count)


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
        context = model.backbone.context(state.index, merged=True)
        for layer in config.blocks[number + 1] if keep.shape[1] else ():
            state = with_tokens(state, model.backbone.layers[layer](state.tokens, *context))
        states.put(image, state)


@torch.no_grad()
def correct(model: DoViT, number: int, states: States, images: Sequence[int]) -> None:
    """Replace tokens by what the correction of decision `number` (from 0) makes of them."""
    for image in images:
        state = states.get(image)
        states.put(image, with_tokens(state, model.corrections[number](state.tokens)))
