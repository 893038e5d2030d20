"""Segmenters of the real transformers with DINOv2's and DINOv3's linear heads, and how their projects run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from oracle.huggingface import pixel_values, randomise, save

KINDS = ("dinov2", "dinov2-registers", "dinov3", "dinov3-gated")
WIDTH, CLASSES = 64, 5


def backbone(kind: str, depth: int = 6) -> Any:
    """A small model with random weights, of 5×5 patches."""
    torch.manual_seed(0)
    shared = {"hidden_size": WIDTH, "num_hidden_layers": depth, "num_attention_heads": 2}
    if kind.startswith("dinov3"):
        gated = kind == "dinov3-gated"
        own = {"intermediate_size": 96, "image_size": 80, "num_register_tokens": 3, "use_gated_mlp": gated}
        model: Any = DINOv3ViTModel(DINOv3ViTConfig(**shared, **own, hidden_act="silu" if gated else "gelu"))
    else:
        own = {"mlp_ratio": 2, "image_size": 70, "patch_size": 14}
        registers = kind == "dinov2-registers"
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**shared, **own)) if registers else None
        model = model or Dinov2Model(Dinov2Config(**shared, **own))
    randomise(model)
    return model


@dataclass(frozen=True)
class Segmenter:
    """A backbone and a linear head on the outputs of `layers`, counted from 1."""

    kind: str
    model: Any
    norm: nn.BatchNorm2d
    conv: nn.Conv2d
    layers: tuple[int, ...]

    @classmethod
    def of(cls, kind: str, layers: tuple[int, ...]) -> Segmenter:
        """With a random head."""
        model, count = backbone(kind), len(layers)
        norm, conv = nn.BatchNorm2d(WIDTH * count), nn.Conv2d(WIDTH * count, CLASSES, 1)
        randomise(nn.ModuleList([norm, conv]), seed=3)
        noise = torch.Generator().manual_seed(4)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(0.3 * torch.randn(WIDTH * count, generator=noise))
        norm.running_var.copy_(0.5 + torch.rand(WIDTH * count, generator=noise))
        return cls(kind, model, norm, conv, layers)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """The folder of the backbone, and the file of the head."""
        save(self.model, folder / "backbone")
        norm, conv = ("decode_head.bn", "decode_head.conv_seg")
        if self.kind.startswith("dinov3"):
            norm, conv = ("segmentation_model.1.batchnorm_layer", "segmentation_model.1.conv")
        state = {f"{norm}.{key}": value for key, value in self.norm.state_dict().items()}
        state |= {f"{conv}.{key}": value for key, value in self.conv.state_dict().items()}
        torch.save({"model": state}, folder / "head.pth")
        return folder / "backbone", folder / "head.pth"

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 → [B, C, h, w]."""
        patch = 16 if self.kind.startswith("dinov3") else 14
        grid = image.shape[1] // patch, image.shape[2] // patch
        outputs = self.model(pixel_values(image), output_hidden_states=True).hidden_states
        norm = self.model.norm if self.kind.startswith("dinov3") else self.model.layernorm
        tokens = [norm(outputs[k])[:, -grid[0] * grid[1] :] for k in self.layers]
        return self.conv(self.norm(torch.cat([x.transpose(1, 2).unflatten(2, grid) for x in tokens], dim=1)))

    def slide(self, image: Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        """dinov3.eval.segmentation.inference.slide_inference, as mmsegmentation has it: logits [C, H, W] of an image
        [H, W, 3]."""
        height, width = image.shape[:2]
        total, count = torch.zeros(CLASSES, height, width), torch.zeros(height, width)
        for row in range(max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1):
            for column in range(max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1):
                bottom, right = min(row * stride[0] + crop[0], height), min(column * stride[1] + crop[1], width)
                at = (slice(bottom - crop[0], bottom), slice(right - crop[1], right))
                window = self.logits(image[at][None])
                total[:, *at] += F.interpolate(window, crop, mode="bilinear", align_corners=False)[0]
                count[at] += 1
        return total / count
