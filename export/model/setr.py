"""SETR's decoders: Naive and PUP (progressive upsampling), and MLA (multi-level aggregation)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import SetrMlaDecoder, SetrUpDecoder
from dovit.export.model.convolution import conv_module


def upsample(x: Tensor, scale: int) -> Tensor:
    """Bilinear, corners not aligned, as every decoder here does it."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


class SetrUp(nn.Module):
    """[B, E, h, w] → logits [B, C, h·s, w·s], s = up_scale ** num_convs."""

    def __init__(self, config: SetrUpDecoder, dim: int, classes: int) -> None:
        super().__init__()
        self.up_scale = config.up_scale
        self.norm = nn.LayerNorm(dim, config.norm_eps)
        widths = [dim] + [config.channels] * config.num_convs
        self.convs = nn.ModuleList(conv_module(i, o, config.kernel, config.conv) for i, o in pairwise(widths))
        self.classify = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, full: Tensor, taps: list[Tensor]) -> Tensor:
        x = self.norm(full.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for conv in self.convs:
            x = upsample(conv(x), self.up_scale)
        return self.classify(x)


class SetrMla(nn.Module):
    """The maps of four layers, summed from the deepest up, a small head on each sum: logits [B, C, 4h, 4w]."""

    def __init__(self, config: SetrMlaDecoder, dim: int, classes: int) -> None:
        super().__init__()
        levels, width, narrow = len(config.taps), config.channels, config.head_channels
        self.up_scale = config.up_scale
        self.norms = nn.ModuleList(nn.LayerNorm(dim, config.norm_eps) for _ in range(levels))
        self.project = nn.ModuleList(conv_module(dim, width, 1, config.conv) for _ in range(levels))
        self.extract = nn.ModuleList(conv_module(width, width, 3, config.conv) for _ in range(levels))
        self.inputs = config.inputs
        self.heads = nn.ModuleList(
            nn.Sequential(
                conv_module(width, narrow, 3, config.head_conv), conv_module(narrow, narrow, 3, config.head_conv)
            )
            for _ in self.inputs
        )
        self.classify = nn.Conv2d(narrow * len(self.inputs), classes, 1)

    def forward(self, full: Tensor, taps: list[Tensor]) -> Tensor:
        total: Tensor | None = None
        necks = []
        levels = [
            project(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            for x, norm, project in zip([*taps, full], self.norms, self.project, strict=True)
        ]
        # as in the checkpoints, extract and heads count from the deepest level, norm and project from the shallowest
        for level, extract in zip(reversed(levels), self.extract, strict=True):
            total = level if total is None else total + level
            necks.append(extract(total))
        outputs = [upsample(head(necks[k]), self.up_scale) for k, head in zip(self.inputs, self.heads, strict=True)]
        return self.classify(torch.cat(outputs, dim=1))
