"""Policies that rank the tokens of each image by confidence and keep the same number of them in every image of a batch.

In training a batch needs one count: the paper makes the counts equal "by striking an average according to the sort of
confidence" (4.1.2). A fixed ratio is the baseline that the paper argues against: as many tokens in every image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState, confidence


def least_confident(q: Tensor, count: int) -> Tensor:
    """The `count` tokens of each image with the lowest q [B, M], ties by lower index: int64 [B, count], ascending."""
    rank = q.nan_to_num(nan=-torch.inf)  # a NaN keeps
    return rank.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values


def average_kept(q: Tensor, threshold: float) -> int:
    """How many tokens of q [B, M] an image keeps by ξ (4), on average over the batch, rounded."""
    kept = (~(q > threshold)).sum().item() / len(q)
    return round(kept)


class AverageByConfidence:
    """The training policy. It collects the heads' logits [B, C, h, w] for their loss (10) on the way."""

    def __init__(self, model: DoViT, thresholds: Sequence[float]) -> None:
        self.model = model
        self.thresholds = thresholds
        self.logits: list[Tensor] = []

    def __call__(self, number: int, seen: TokenState) -> tuple[Tensor, Tensor]:
        logits = self.model.head_logits(number, seen)
        self.logits.append(logits)
        q = confidence(logits.detach().flatten(2)).gather(1, seen.index.long())
        count = max(average_kept(q, self.thresholds[number]), self.model.config.least_kept)
        return q, least_confident(q, count)


class FixedRatio:
    """Keeps `counts[number]` tokens of every image at decision `number`."""

    def __init__(self, model: DoViT, counts: Sequence[int]) -> None:
        self.model = model
        self.counts = counts

    def __call__(self, number: int, seen: TokenState) -> tuple[Tensor, Tensor]:
        q = self.model.confidence(number, seen)
        return q, least_confident(q, max(self.counts[number], self.model.config.least_kept))
