"""Fitting one decision's lens and head to a frozen model, from its features, with labels or without.

lens  ridge regression from this layer's tokens to the last layer's, then distillation: KL(p_t ‖ p_s) between what the decoder
      makes of the layers' own tokens and of the lens's
correction  ridge regression from the tokens that stayed, after the next block, to what they are there without token pass; the
      last one is then distilled as a lens is
refinement  distilled as a lens is, on the full sequence that the last block leaves
head  multinomial logistic regression (convex) from the lens's normed output to the probabilities that the whole model gives a
      patch, or to the labels of its pixels where the images have some; its temperature minimises the cross-entropy on images
      that nothing else was fitted to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model import DoViT
from dovit.export.model.heads import DecisionHead
from dovit.export.model.lens import Correction, Lens, TokenwiseMap
from dovit.export.model.token_pass import TokenState, reconstruct, with_tokens
from dovit.runtime.errors import DovitError
from dovit.training.adapt.features import Features
from dovit.training.adapt.probabilities import cross_entropy, divergence, log_probabilities
from dovit.training.adapt.states import States

RIDGE = 1e-3  # of the mean of the diagonal of XᵀX
TOKENS_A_STEP = 2048
HEAD_TOKENS = 65536  # at most, for the logistic regression
HEAD_DECAY = 1e-5
TEMPERATURES = torch.logspace(-1, 1, 161)


def fit_lens(lens: Lens, states: States, features: Features, last: int, images: Sequence[int], prefix: int) -> None:
    """Set the affine part of `lens` to the ridge regression from the states' tokens to those after layer `last`."""
    dim = lens.linear.in_features
    sums = torch.zeros(dim + 1, dim + 1, dtype=torch.float64), torch.zeros(dim + 1, dim, dtype=torch.float64)
    for image in images:
        state = states.get(image)
        x = state.tokens[0, prefix:]  # [M, E]
        _add_products(*sums, x, features.take(last, [image])[0, state.index[0].long()])
    _set_affine(lens, _solve(*sums))


def fit_correction(
    correction: Correction, states: States, features: Features, layer: int, images: Sequence[int]
) -> None:
    """Set the affine part of `correction` to the ridge regression from the states' tokens to those that the model without token
    pass has after `layer` (from 1): y - x ≈ r (C x - x), where r is the share of the tokens that has stopped."""
    dim, prefix = correction.linear.in_features, correction.prefix
    sums = torch.zeros(dim + 1, dim + 1, dtype=torch.float64), torch.zeros(dim + 1, dim, dtype=torch.float64)
    for image in images:
        state = states.get(image)
        x = state.tokens[0, prefix:]  # [M, E]
        stopped = 1 - len(x) / correction.count
        wanted = features.take(layer, [image])[0, state.index[0].long()] - x
        _add_products(*sums, x, wanted, stopped)
    if float(sums[0].diagonal().sum()) > 0:  # else no token has stopped, or none is left
        _set_affine(correction, _solve(*sums) + torch.eye(dim + 1, dim))


def _add_products(xx: Tensor, xy: Tensor, x: Tensor, y: Tensor, scale: float = 1) -> None:
    """Add XᵀX and XᵀY of a regression from scale · [x, 1], x [M, E], to y [M, E]."""
    x = scale * torch.cat([x, torch.ones(len(x), 1)], dim=1)  # [M, E+1]
    xx += (x.T @ x).double()
    xy += (x.T @ y).double()


def _solve(xx: Tensor, xy: Tensor) -> Tensor:
    """[E+1, E] float32 of the ridge regression."""
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(len(xx), dtype=torch.float64)
    return torch.linalg.solve(xx + ridge, xy).float()


@torch.no_grad()
def _set_affine(map_: TokenwiseMap, solved: Tensor) -> None:
    map_.linear.weight.copy_(solved[:-1].T)
    map_.linear.bias.copy_(solved[-1])


def distil(
    model: DoViT,
    run: Callable[[TokenState], Tensor],
    parameters: Sequence[nn.Parameter],
    states: States,
    features: Features,
    images: Sequence[int],
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    progress: Callable[[int], None],
) -> None:
    """Train the `parameters` of a lens, a correction or the refinement by Adam so that the decoder makes the same of the full
    sequence [1, N, E] that `run` makes of a state with them as of the one that the model without token pass has at the end."""
    config = model.config
    optimiser = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    batch = min(len(images), max(1, TOKENS_A_STEP // config.tokens))
    for step in range(steps):
        chosen = [images[k] for k in torch.randperm(len(images), generator=generator)[:batch].tolist()]
        mapped = [run(states.get(image)) for image in chosen]  # [1, N, E] each
        logits = decode(model, states, features, chosen, mapped)
        loss = divergence(model, logits, probabilities(model, features, chosen))
        check_finite(loss, lr)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1)


def check_finite(loss: Tensor, lr: float) -> None:
    """Raises DovitError where training has diverged."""
    if not loss.isfinite():
        raise DovitError(f"distillation has diverged, its loss is {float(loss.detach())}: lower --lr, which is {lr:g}")


def tokens_through(module: TokenwiseMap, prefix: int) -> Callable[[TokenState], Tensor]:
    """A state → its full sequence with what `module` makes of its tokens, each by itself."""
    return lambda state: reconstruct(with_tokens(state, module(state.tokens)), prefix)


def decode(model: DoViT, states: States, features: Features, images: Sequence[int], full: Sequence[Tensor]) -> Tensor:
    """The decoder's logits [images, C, h, w] where every token stops as it is in `full`, [1, N, E] an image: a decoder of several
    layers reads it in the place of all those that are still to come, and an EoMT's queries predict what they do without token
    pass (logits of the size of its masks)."""
    if model.config.queries:
        return model.decode(torch.cat(list(full)), features.beside(images), resize_masks=False)
    read = []
    for image, sequence in zip(images, full, strict=True):
        taps = states.taps(image) if model.config.taps else []
        read.append([sequence, *taps, *[sequence] * (len(model.config.taps) - len(taps))])
    last, *taps = (torch.cat(level) for level in zip(*read, strict=True))
    return model.decode(last, taps)


@torch.no_grad()
def probabilities(model: DoViT, features: Features, images: Sequence[int], resize_masks: bool = False) -> Tensor:
    """p_t [images, C, h, w] of the model without token pass, as `decode` has it; with `resize_masks` as the whole model has."""
    full = features.take(model.config.backbone.depth, images)
    return log_probabilities(model, model.decode(full, features.beside(images), resize_masks)).exp()


def check_left(
    model: DoViT, number: int, states: States, features: Features, images: Sequence[int], which: str
) -> None:
    """Raise DovitError where decision `number` (from 0) meets no token in `images` that its head could learn from. `which` images
    they are, for the message."""
    if any(features.targets(k)[states.get(k).index[0].long()].any() for k in images):
        return
    what = "token with a label that is not ignored" if features.labelled else "token"
    if not number:
        raise DovitError(
            f"no {what} in {which}: give more labelled images, or --images in the place of --data, with which heads learn from "
            f"the model"
        )
    raise DovitError(
        f"no {what} is left for decision {number + 1} in {which}: those before stopped all of them, the last at ξ = "
        f"{model.config.thresholds[number - 1]:g}; raise --threshold, or give more images"
    )


def fit_head(
    model: DoViT,
    number: int,
    states: States,
    features: Features,
    images: Sequence[int],
    held_out: Sequence[int],
    generator: torch.Generator,
) -> None:
    """Fit the head of decision `number` (from 0) behind its lens to the tokens that are left."""
    head, classes = cast(DecisionHead, model.heads[number]), model.config.classes
    x, targets = _head_data(model, number, states, features, images, generator)
    seen, truth = _head_data(model, number, states, features, held_out, generator)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(x @ weight.T + bias, targets) + HEAD_DECAY * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        logits = seen @ weight.T + bias
        losses = torch.stack([cross_entropy(logits / t, truth) for t in TEMPERATURES])
        temperature = float(TEMPERATURES[losses.argmin()])
        norm = cast(nn.LayerNorm, head.norm)
        norm.weight.fill_(1)
        norm.bias.zero_()
        head.classify.weight.copy_((weight / temperature)[:, :, None, None])
        cast(Tensor, head.classify.bias).copy_(bias / temperature)


@torch.no_grad()
def _head_data(
    model: DoViT,
    number: int,
    states: States,
    features: Features,
    images: Sequence[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Normed lens output [T, E] and what the head learns of it [T, C]: at most HEAD_TOKENS tokens, evenly from `images`, those
    without a label left out."""
    config = model.config
    each = max(1, HEAD_TOKENS // len(images))
    inputs, targets = [], []
    for image in images:
        state = states.get(image)
        learnt = features.targets(image)[state.index[0].long()]  # [M, C]
        known = learnt.any(dim=1).nonzero().flatten()
        chosen = known[torch.randperm(len(known), generator=generator)[:each]]
        mapped = model.through_lens(number, state).tokens[0, config.prefix + chosen]
        inputs.append(F.layer_norm(mapped, mapped.shape[1:], eps=config.decisions[number].norm_eps))
        targets.append(learnt[chosen])
    return torch.cat(inputs), torch.cat(targets)
