"""Fitting one decision's lens and head to a frozen model, from its features and without labels.

lens  ridge regression from this layer's tokens to the last layer's, then distillation: KL(p_t ‖ p_s) between what the decoder
      makes of the last layer's tokens and of the lens's
head  multinomial logistic regression (convex) from the lens's normed output to the label that the whole model gives a patch;
      its temperature minimises the cross-entropy on images that nothing else was fitted to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model import DoViT
from dovit.export.model.heads import DecisionHead
from dovit.export.model.lens import Lens
from dovit.training.adapt.features import Features

RIDGE = 1e-3  # of the mean of the diagonal of XᵀX
TOKENS_A_STEP = 2048
HEAD_TOKENS = 65536  # at most, for the logistic regression
HEAD_DECAY = 1e-5
TEMPERATURES = torch.logspace(-1, 1, 161)


@dataclass(frozen=True)
class Fitted:
    """What one decision's fit came to on images that it has not seen: `divergence`, KL in nats a position; `agreement`, share of
    the patches with q > ξ whose class is the model's own; `confident`, share of all patches with q > ξ."""

    layer: int
    divergence: float
    agreement: float
    confident: float
    temperature: float


def fit_ridge(lens: Lens, features: Features, layer: int, last: int, images: Sequence[int]) -> None:
    """Set the affine part of `lens` to the ridge regression from the tokens after `layer` to those after `last`."""
    dim = lens.linear.in_features
    xx = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)
    xy = torch.zeros(dim + 1, dim, dtype=torch.float64)
    for image in images:
        x = features.take(layer, [image])[0]
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)  # [N, E+1]
        xx += (x.T @ x).double()
        xy += (x.T @ features.take(last, [image])[0]).double()
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(dim + 1, dtype=torch.float64)
    solved = torch.linalg.solve(xx + ridge, xy).float()  # [E+1, E]
    with torch.no_grad():
        lens.linear.weight.copy_(solved[:-1].T)
        lens.linear.bias.copy_(solved[-1])


def distil(
    model: DoViT,
    lens: Lens,
    features: Features,
    layer: int,
    images: Sequence[int],
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    progress: Callable[[int], None],
) -> None:
    """Train `lens` by Adam so that the decoder makes the same of its output as of the last layer's tokens."""
    last = model.config.backbone.depth
    optimiser = torch.optim.Adam(lens.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    batch = min(len(images), max(1, TOKENS_A_STEP // model.config.tokens))
    for step in range(steps):
        chosen = [images[k] for k in torch.randperm(len(images), generator=generator)[:batch].tolist()]
        loss = divergence(model, lens(features.take(layer, chosen)), features.take(last, chosen))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1)


def divergence(model: DoViT, mapped: Tensor, full: Tensor) -> Tensor:
    """KL(p_t ‖ p_s), the mean over the positions of the decoder's logits; `mapped` and `full` [B, N, E]."""
    with torch.no_grad():
        wanted = model.decode(full, []).softmax(dim=1)
    made = model.decode(mapped, []).log_softmax(dim=1)
    return F.kl_div(made, wanted, reduction="none").sum(dim=1).mean()


@torch.no_grad()
def own_labels(model: DoViT, full: Tensor) -> Tensor:
    """The class that the whole model gives each patch: tokens [B, N, E] of the last layer → [B, N] int64."""
    probabilities = model.decode(full, []).softmax(dim=1)
    return F.adaptive_avg_pool2d(probabilities, model.config.grid).flatten(2).argmax(dim=1)


def fit_head(
    model: DoViT,
    number: int,
    features: Features,
    images: Sequence[int],
    held_out: Sequence[int],
    generator: torch.Generator,
) -> float:
    """Fit the head of decision `number` (from 0) behind its lens. Returns the temperature by which its logits are divided."""
    head, classes = cast(DecisionHead, model.heads[number]), model.config.classes
    x, labels = _head_data(model, number, features, images, generator)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + HEAD_DECAY * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        seen, truth = _head_data(model, number, features, held_out, generator)
        logits = seen @ weight.T + bias
        losses = torch.stack([F.cross_entropy(logits / t, truth) for t in TEMPERATURES])
        temperature = float(TEMPERATURES[losses.argmin()])
        norm = cast(nn.LayerNorm, head.norm)
        norm.weight.fill_(1)
        norm.bias.zero_()
        head.classify.weight.copy_((weight / temperature)[:, :, None, None])
        cast(Tensor, head.classify.bias).copy_(bias / temperature)
    return temperature


@torch.no_grad()
def _head_data(
    model: DoViT, number: int, features: Features, images: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Normed lens output [T, E] and the model's own labels [T] of at most HEAD_TOKENS tokens, evenly from all `images`."""
    config = model.config
    layer, eps = config.decisions[number].layer, config.decisions[number].norm_eps
    each = max(1, HEAD_TOKENS // len(images))
    inputs, labels = [], []
    for image in images:
        chosen = torch.randperm(config.tokens, generator=generator)[:each]
        mapped = model.lenses[number](features.take(layer, [image]))[0, chosen]
        inputs.append(F.layer_norm(mapped, mapped.shape[1:], eps=eps))
        labels.append(own_labels(model, features.take(config.backbone.depth, [image]))[0, chosen])
    return torch.cat(inputs), torch.cat(labels)


@torch.no_grad()
def judge(model: DoViT, number: int, features: Features, images: Sequence[int], temperature: float) -> Fitted:
    """How lens and head of decision `number` (from 0) do on `images`, all tokens kept until there."""
    config = model.config
    layer, last = config.decisions[number].layer, config.backbone.depth
    total, confident, agreed = 0.0, 0, 0
    for image in images:
        full = features.take(last, [image])
        mapped = model.lenses[number](features.take(layer, [image]))  # [1, N, E]
        total += float(divergence(model, mapped, full))
        q, said = model.heads[number](mapped.transpose(1, 2)[..., None])[..., 0].softmax(dim=1).max(dim=1)
        sure = q > config.thresholds[number]
        confident += int(sure.sum())
        agreed += int((said == own_labels(model, full))[sure].sum())
    count = len(images)
    share = confident / (count * config.tokens)
    return Fitted(layer, total / count, agreed / confident if confident else float("nan"), share, temperature)
