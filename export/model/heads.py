"""Decision heads: from tokens to class logits, one value per class and token, at token resolution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from dovit.export.model.config import HeadConfig


def conv_bn_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """mmsegmentation's ConvModule: convolution without bias, batch norm, ReLU; same size."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class DecisionHead(nn.Module):
    """H_ℓ of (2): a map [B, E, h, w] → logits [B, C, h, w].

    SETR's auxiliary heads also upsample between their convolutions so that their training loss sees pixels. A decision
    is made per token, so the same weights are applied here at token resolution.
    """

    def __init__(self, config: HeadConfig, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, config.norm_eps) if config.norm else nn.Identity()
        widths = [dim] + [config.channels] * config.num_convs
        self.convs = nn.ModuleList(conv_bn_relu(i, o, config.kernel) for i, o in pairwise(widths))
        self.cat = conv_bn_relu(dim + widths[-1], config.channels, config.kernel) if config.concat else None
        self.classify = nn.Conv2d(config.channels if config.concat else widths[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = x
        for conv in self.convs:
            y = conv(y)
        if self.cat is not None:
            y = self.cat(torch.cat([x, y], dim=1))
        return self.classify(y)
