"""EoMT's decoder: queries that go through the last layers of the backbone beside the tokens, and their classes and masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import EomtDecoder
from dovit.export.model.convolution import activation


class ScaleBlock(nn.Module):
    """[B, E, h, w] → [B, E, 2h, 2w]."""

    def __init__(self, config: EomtDecoder, dim: int) -> None:
        super().__init__()
        self.act = activation(config.activation)
        self.conv1 = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.act(self.conv1(x)))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Eomt(nn.Module):
    """Q queries: they join the tokens, predict a class and a mask each, and the masks are laid over the patches."""

    def __init__(self, config: EomtDecoder, dim: int, classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size = image_size
        self.act = activation(config.activation)
        self.query = nn.Parameter(torch.zeros(config.queries, dim))
        self.class_head = nn.Linear(dim, classes + 1)  # the last stands for no object
        self.mask_head = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.upscale = nn.ModuleList(ScaleBlock(config, dim) for _ in range(config.upscale))

    def join(self, tokens: Tensor, *rotation: Tensor) -> tuple[Tensor, ...]:
        """Tokens [B, P+M, E] → [B, Q+P+M, E], and the rotary positions of as many, where there are some: queries have none."""
        queries = self.query.shape[0]
        joined = torch.cat([self.query.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        # an angle of 0: its cosine is 1, its sine 0
        turned = (F.pad(x, (0, 0, queries, 0), value=value) for x, value in zip(rotation, (1.0, 0.0), strict=False))
        return joined, *turned

    def predict(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, Q, E] after the final norm → probabilities of the classes [B, C, Q], mask embeddings [B, Q, E]."""
        first, second, last = self.mask_head
        masks = last(self.act(second(self.act(first(queries)))))
        return self.class_head(queries).softmax(dim=-1)[..., :-1].transpose(1, 2), masks

    def forward(self, full: Tensor, predicted: list[Tensor], resize: bool = True) -> Tensor:
        """[B, E, h, w] and what `predict` returns → logits [B, C, H, W] at the size of the image, each from 0 to Q; without
        `resize` at the size of the masks, for a fraction of the work.

        Masks are resized before the sigmoid, as post_process_semantic_segmentation of transformers does it.
        """
        classes, masks = predicted
        for block in self.upscale:
            full = block(full)
        products = (masks @ full.flatten(2)).unflatten(2, full.shape[2:])  # [B, Q, h', w']
        if resize:
            products = F.interpolate(products, self.image_size, mode="bilinear", align_corners=False)
        size = self.image_size if resize else products.shape[2:]
        return (classes @ products.sigmoid().flatten(2)).unflatten(2, size)
