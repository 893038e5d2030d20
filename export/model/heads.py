"""Decision heads: from tokens to class logits, one value per class and token, at token resolution."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import FcnConfig, HeadConfig
from dovit.export.model.convolution import conv_module


class FcnHead(nn.Module):
    """A map [B, E, h, w] → logits [B, C, h, w], as mmsegmentation's FCNHead; with `norm_eps` a LayerNorm goes first."""

    def __init__(self, config: FcnConfig, dim: int, classes: int, norm_eps: float | None = None) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, norm_eps)
        widths = [dim] + [config.channels] * config.num_convs
        self.convs = nn.ModuleList(
            conv_module(i, o, config.kernel, config.conv, config.dilation) for i, o in pairwise(widths)
        )
        # not dilated in mmsegmentation either
        self.cat = conv_module(dim + widths[-1], config.channels, config.kernel, config.conv) if config.concat else None
        self.classify = nn.Conv2d(config.channels if config.concat else widths[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = x
        for conv in self.convs:
            y = conv(y)
        if self.cat is not None:
            y = self.cat(torch.cat([x, y], dim=1))
        return self.classify(y)

    @property
    def is_linear(self) -> bool:
        """Whether it classifies each position by itself, with one 1×1 convolution and no other layer than a norm."""
        return not self.convs and self.cat is None

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """What a linear head (`is_linear`) makes of tokens [.., E]: logits [.., C]. `forward` does the same for a map, and moves
        channels back and forth for it."""
        return F.linear(self.norm(tokens), self.classify.weight.flatten(1), self.classify.bias)


class DecisionHead(FcnHead):
    """H_ℓ of (2): a map [B, E, h, w] → logits [B, C, h, w].

    SETR's auxiliary heads also upsample between their convolutions so that their training loss sees pixels. A decision
    is made per token, so the same weights are applied here at token resolution.
    """

    def __init__(self, config: HeadConfig, dim: int, classes: int) -> None:
        super().__init__(config, dim, classes, config.norm_eps if config.norm else None)
