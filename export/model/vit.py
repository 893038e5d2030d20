"""Transformer layers and the patch embedding, as ViT and DeiT have them (pre-norm, exact GELU)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import Activation, BackboneConfig
from dovit.export.model.convolution import activation


class Attention(nn.Module):
    """Multi-head self-attention over all tokens it is given (7)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, T, E/heads]
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, count, dim))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden: int, act: Activation) -> None:
        super().__init__()
        self.act = activation(act)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Layer(nn.Module):
    """One transformer layer: tokens [B, T, E] → [B, T, E], any T."""

    def __init__(self, dim: int, heads: int, hidden: int, eps: float, act: Activation) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, hidden, act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Backbone(nn.Module):
    """Patch embedding, layers, and norms before and after them where the family has some.

    `pos_embed` [N, E] belongs to this image size (a checkpoint's own is resized when it is read); `prefix` [P, E]
    holds the class and distillation tokens with their positions already added, since nothing ever needs them apart.
    """

    def __init__(self, config: BackboneConfig, tokens: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_embed = nn.Conv2d(3, dim, config.patch, config.patch)
        self.pos_embed = nn.Parameter(torch.zeros(tokens, dim))
        self.prefix = nn.Parameter(torch.zeros(config.prefix, dim))
        self.layers = nn.ModuleList(
            Layer(dim, config.heads, config.mlp_dim, config.norm_eps, config.activation) for _ in range(config.depth)
        )
        self.patch_norm, self.pre_norm, self.norm = (
            nn.LayerNorm(dim, config.norm_eps) if present else nn.Identity()
            for present in (config.patch_norm, config.pre_norm, config.final_norm)
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] → tokens [B, P+N, E]."""
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)  # [B, N, E]
        x = self.patch_norm(x) + self.pos_embed
        return self.pre_norm(torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], dim=1))
