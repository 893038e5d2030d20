"""Transformer layers and the patch embedding of plain pre-norm ViTs: ViT, DeiT, DINOv2, DINOv3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model.config import Activation, BackboneConfig
from dovit.export.model.convolution import activation
from dovit.export.model.rotary import RotaryPositions, rotate
from dovit.export.model.token_pass import Cells


class Attention(nn.Module):
    """Multi-head self-attention over all tokens it is given (7)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, *rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens x [B, T, E], each [B, heads, T, E/heads]; the first two turned where positions
        are rotary."""
        batch, count, dim = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return (rotate(q, *rotation), rotate(k, *rotation), v) if rotation else (q, k, v)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        batch, count, dim = x.shape
        rotation, bias = context[: len(context) // 2 * 2], context[-1].to(x.dtype) if len(context) % 2 else None
        x = F.scaled_dot_product_attention(*self.project(x, *rotation), attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, count, dim))


class Mlp(nn.Module):
    """Two linear layers with an activation between them. `gated`: the first makes gate and up, the second takes
    act(gate) · up."""

    def __init__(self, dim: int, hidden: int, act: Activation, *, gated: bool = False) -> None:
        super().__init__()
        self.act, self.gated = activation(act), gated
        self.fc1 = nn.Linear(dim, 2 * hidden if gated else hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return self.fc2(self.act(gate) * up)
        return self.fc2(self.act(x))


class Layer(nn.Module):
    """One transformer layer: tokens [B, T, E] → [B, T, E], any T.

    `context`: where positions are rotary, cosine and sine that each token's queries and keys are turned by; behind them, where
    there are merged tokens, what is added to the scores of each key, [B, 1, 1, T]. LayerScale, a factor for each channel of what
    a layer adds to its input, has no place here: readers multiply it into `proj` and `fc2`.
    """

    def __init__(self, dim: int, heads: int, hidden: int, eps: float, act: Activation, *, gated: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, hidden, act, gated=gated)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), *context)
        return x + self.mlp(self.norm2(x))


class Backbone(nn.Module):
    """Patch embedding, layers, and norms before and after them where the family has some.

    Learned positions `pos_embed` [N, E] belong to this `grid` of patches (a checkpoint's own are resized when it is read);
    rotary ones are computed for it. `prefix` [P, E] holds the class, distillation and register tokens with their positions
    already added, since nothing ever needs them apart.
    """

    def __init__(self, config: BackboneConfig, grid: tuple[int, int], cells: Cells | None = None) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = nn.Conv2d(3, dim, config.patch, config.patch)
        self.pos_embed: nn.Parameter | None = None
        self.cells = cells
        self.rotary: RotaryPositions | None = None
        self.rotary_merged: RotaryPositions | None = None  # where there are merged tokens
        if config.rotary is None:
            self.pos_embed = nn.Parameter(torch.zeros(grid[0] * grid[1], dim))
        else:
            self.rotary = RotaryPositions(config.rotary, config.prefix, grid)
            if cells is not None:
                self.rotary_merged = RotaryPositions(config.rotary, config.prefix, grid, cells)
        self.prefix = nn.Parameter(torch.zeros(config.prefix, dim))
        self.layers = nn.ModuleList(
            Layer(dim, config.heads, config.mlp_dim, config.norm_eps, config.activation, gated=config.gated)
            for _ in range(config.depth)
        )
        self.patch_norm, self.pre_norm, self.norm = (
            nn.LayerNorm(dim, config.norm_eps) if present else nn.Identity()
            for present in (config.patch_norm, config.pre_norm, config.final_norm)
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] → tokens [B, P+N, E]."""
        x = self.patch_norm(self.patch_embed(pixels).flatten(2).transpose(1, 2))  # [B, N, E]
        if self.pos_embed is not None:
            x = x + self.pos_embed
        return self.pre_norm(torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], dim=1))

    def context(self, index: Tensor, *, merged: bool = False) -> tuple[Tensor, ...]:
        """What the layers of a block take beside the tokens, those of patches being at `index` [B, M]: the rotary positions of
        all tokens, unless positions are learned; and with `merged`, behind the first decision of a model that merges tokens by
        cell, what is added to the scores of each key."""
        if self.cells is None or not merged:
            return () if self.rotary is None else self.rotary(index)
        bias = self.cells.key_bias(index, self.config.prefix + self.cells.count)
        return (bias,) if self.rotary_merged is None else (*self.rotary_merged(index), bias)
