"""The training losses of the paper, 3.4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dovit.evaluation.data.dataset import IGNORE


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """U of (10): logits [B, C, h, w] → [B, C, H, W] float32, bilinear, corners not aligned."""
    if logits.shape[2:] == size:
        return logits.float()
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """L_CE (9): mean over the pixels of `labels` [B, H, W] int64 that are not 255, of `logits` [B, C, h, w] upsampled.

    Zero, and not NaN, where no pixel counts.
    """
    total = F.cross_entropy(upsampled(logits, _size(labels)), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def self_distillation(student: Tensor, teacher: Tensor, size: tuple[int, int]) -> Tensor:
    """L_SD (11): Σ_j p_s log(p_s / p_t), mean over the H·W pixels; logits [B, C, h, w], teacher's without gradient."""
    log_s = upsampled(student, size).log_softmax(dim=1)
    log_t = upsampled(teacher.detach(), size).log_softmax(dim=1)
    return (log_s.exp() * (log_s - log_t)).sum(dim=1).mean()


def strided(labels: Tensor, stride: int) -> Tensor:
    """Every `stride`-th label [B, H, W] → [B, H/stride, W/stride], each the middle one of its square."""
    return labels[:, stride // 2 :: stride, stride // 2 :: stride]


def _size(labels: Tensor) -> tuple[int, int]:
    return labels.shape[1], labels.shape[2]
