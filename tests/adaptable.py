"""Small frozen segmenters, pictures of theirs, and models between the steps of dovit-adapt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import random_images, randomised, small_config, spreading_thresholds
from PIL import Image

from dovit.export.model import DoViT
from dovit.training.adapt.run import Adaptation, adapted_config
from dovit.training.adapt.states import States

SEVERAL_LAYERS = ["setr-mla", "segmenter-linear-taps"]  # 1, 3 and 4 of 4


def dense_model(decoder: str = "segmenter-linear") -> DoViT:
    return randomised(small_config(decoder, layers=(), depth=4, taps=(1, 3, 4)))


def reads_last_layer_alone(model: DoViT) -> bool:
    return not (model.config.taps or model.config.queries)


def probabilities_of(model: DoViT, logits: torch.Tensor) -> torch.Tensor:
    """Float64; an EoMT's scores are shares of their sum."""
    return (
        logits.double() / logits.double().sum(1, keepdim=True) if model.config.queries else logits.double().softmax(1)
    )


def photos(folder: Path, model: DoViT, count: int) -> list[Path]:
    folder.mkdir()
    for k, image in enumerate(random_images(model.config, count, seed=4).numpy()):
        Image.fromarray(image).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def tokens_after(model: DoViT, file: Path, layer: int) -> torch.Tensor:
    x = model.embed(torch.from_numpy(np.array(Image.open(file)))[None])
    for one in model.backbone.layers[:layer]:
        x = one(x)
    return x[0, model.config.backbone.prefix :]


def adaptable(tmp_path: Path, decoder: str = "segmenter-linear", **how: Any) -> tuple[DoViT, States, list[Path]]:
    dense = dense_model(decoder)
    layers = (1, 2) if dense.config.queries else (2, 3)  # which join after layer 2
    adaptation = Adaptation(layers, (0.5, 0.5), correct=reads_last_layer_alone(dense), **how)
    model = DoViT(adapted_config(dense.config, adaptation)).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for head in model.heads:
            head.classify.weight.copy_(torch.randn(head.classify.weight.shape, generator=noise) / 8)
        for correction in model.corrections if adaptation.correct else ():
            correction.linear.weight.add_(torch.randn(64, 64, generator=noise) / 32)
    xi = spreading_thresholds(model, random_images(model.config, 6, seed=4), (0.7, 0.8))
    model.config = model.config.model_copy(update={"thresholds": xi})
    (tmp_path / "states").mkdir()
    return model, States(tmp_path / "states"), photos(tmp_path / "photos", dense, 6)
