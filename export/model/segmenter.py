"""Segmenter's decoders: Linear, and the mask transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import SegmenterLinearDecoder, SegmenterMaskDecoder
from dovit.export.model.heads import FcnHead
from dovit.export.model.vit import Layer


class SegmenterLinear(FcnHead):
    """[B, E, h, w] → logits [B, C, h, w] by one 1×1 convolution, or by mmsegmentation's FCNHead. With taps, all of them and
    `full` are joined along the channels first."""

    def __init__(self, config: SegmenterLinearDecoder, dim: int, classes: int) -> None:
        super().__init__(config, config.levels * dim, classes)

    def forward(self, full: Tensor, taps: list[Tensor] | None = None) -> Tensor:
        return super().forward(torch.cat([*taps, full], dim=1) if taps else full)


class SegmenterMask(nn.Module):
    """[B, E, h, w] → logits [B, C, h, w]: cosine similarity of each patch with each class embedding, normalised."""

    def __init__(self, config: SegmenterMaskDecoder, dim: int, classes: int) -> None:
        super().__init__()
        width, eps = config.embed_dim, config.norm_eps
        self.project = nn.Linear(dim, width)
        self.class_embed = nn.Parameter(torch.zeros(classes, width))
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.mlp_dim, eps, config.activation) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width, eps)
        self.project_patches = nn.Linear(width, width, bias=False)
        self.project_classes = nn.Linear(width, width, bias=False)
        self.mask_norm = nn.LayerNorm(classes, eps)

    def forward(self, full: Tensor, taps: list[Tensor]) -> Tensor:
        batch, _, height, width = full.shape
        classes = self.class_embed.shape[0]
        x = self.project(full.flatten(2).transpose(1, 2))  # [B, N, E']
        x = torch.cat([x, self.class_embed.expand(batch, -1, -1)], dim=1)  # [B, N+C, E']
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        patches = F.normalize(self.project_patches(x[:, :-classes]), dim=-1)
        embeds = F.normalize(self.project_classes(x[:, -classes:]), dim=-1)
        masks = self.mask_norm(patches @ embeds.transpose(1, 2))  # [B, N, C]
        return masks.transpose(1, 2).reshape(batch, classes, height, width)
