"""Small models of the real transformers with random weights, saved as its users save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dovit.export.model import DoViT

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random values for every parameter, the special tokens included; LayerScale around 0.5."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=noise)
            if "lambda1" in name:
                parameter.copy_(0.5 + 0.2 * values)
            elif parameter.ndim > 1 and name.endswith("weight"):
                parameter.copy_(values / parameter[0].numel() ** 0.5)
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.2 * values)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * values)
            else:
                parameter.copy_(values)
    model.eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    """As save_pretrained writes it, with a preprocessor_config.json."""
    model.save_pretrained(folder, **options)
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    about = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def images(size: tuple[int, int], batch: int = 2, seed: int = 0) -> Tensor:
    """[B, H, W, 3] uint8."""
    return torch.randint(0, 256, (batch, *size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def pixel_values(image: Tensor) -> Tensor:
    """[B, 3, H, W] float32, as an image processor makes it."""
    scaled = (image.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    return scaled.permute(0, 3, 1, 2).float()


@torch.no_grad()
def features(model: DoViT, image: Tensor) -> np.ndarray:
    """[B, E, h, w]: what the decoder of `model` is given with every token kept, after the final norm."""
    seen: list[Tensor] = []
    handle = model.decoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    keeps = [torch.arange(model.config.tokens).expand(len(image), -1)] * len(model.heads)
    try:
        model(image, keeps=keeps)
    finally:
        handle.remove()
    return seen[0].numpy()


def as_map(tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Patch tokens [B, N, E] of transformers as [B, E, h, w]."""
    return tokens.transpose(1, 2).unflatten(2, grid).numpy()


def difference(made: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(made - expected).max() / np.abs(expected).max())
