"""Optimisers and the learning rate, as mmsegmentation trains these models."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from dovit.export.model import DoViT

OptimiserName = Literal["sgd", "adamw"]
WARMUP_START = 1e-6  # of the learning rate: mmsegmentation's start_factor


def make_optimiser(
    model: DoViT, name: OptimiserName, lr: float, weight_decay: float, head_lr_mult: float
) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW (0.9, 0.999), of the parameters that are trained.

    Decoder and decision heads learn `head_lr_mult` times as fast. AdamW decays neither biases, norms nor embeddings, as
    these models are trained with it; SGD decays all alike, as mmsegmentation's schedules do.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # of several dimensions, layers have weights alone: the rest are positions, tokens, classes and queries
            plain = parameter.ndim <= 1 or not parameter_name.endswith(".weight")
            decay = 0.0 if name == "adamw" and plain else weight_decay
            scale = 1.0 if parameter_name.startswith("backbone.") else head_lr_mult
            groups.setdefault((scale, decay), []).append(parameter)
    described = [
        {"params": p, "lr_scale": s, "weight_decay": d} for (s, d), p in sorted(groups.items(), key=lambda g: g[0])
    ]
    if name == "sgd":
        return torch.optim.SGD(described, lr=lr, momentum=0.9)
    return torch.optim.AdamW(described, lr=lr)


def learning_rate(step: int, steps: int, base: float, *, warmup: int, power: float, min_lr: float) -> float:
    """Poly: (base - min_lr)·(1 - t)^power + min_lr, t from 0 to 1 over the steps; times a linear warm-up over the first
    `warmup` steps. A function of the step alone, so that a resumed run has the same."""
    rate = (base - min_lr) * (1 - step / steps) ** power + min_lr
    if step < warmup:
        rate *= WARMUP_START + (1 - WARMUP_START) * step / warmup
    return rate


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]
