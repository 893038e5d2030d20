"""What a decoder's logits say of each class, and how far from it another model is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dovit.export.model import DoViT

LEAST_SCORE = 1e-6  # of a class that no query predicts


def log_probabilities(model: DoViT, logits: Tensor) -> Tensor:
    """log p of logits [B, C, h, w]. An EoMT's are scores from 0 to Q, and p is each one's share of their sum."""
    if not model.config.queries:
        return logits.log_softmax(dim=1)
    scores = logits.clamp(min=LEAST_SCORE)
    return scores.log() - scores.sum(dim=1, keepdim=True).log()


def of_patches(wanted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Probabilities [B, C, h, w] at the decoder's resolution → the mean of each patch, [B, N, C]."""
    return F.adaptive_avg_pool2d(wanted, grid).flatten(2).transpose(1, 2)


def divergence(model: DoViT, logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(p_t ‖ p_s), the mean over the positions of the decoder's logits [B, C, h, w]: p_t is `wanted`, p_s what `logits` say."""
    return F.kl_div(log_probabilities(model, logits), wanted, reduction="none").sum(dim=1).mean()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """L_CE (9), mean over the pixels that are not ignored: of logits [T, C], the shares `targets` [T, C] of a patch's pixels."""
    return -(targets * logits.log_softmax(dim=1)).sum() / targets.sum().clamp(min=torch.finfo(targets.dtype).tiny)
