"""DynamicViT (Rao et al., 2021) extended to segmenters: the baseline "DyViT/ρ" of the paper's Table 1.

A prediction module before each of the later blocks scores the tokens; stage s keeps ρ^s of all tokens. In training every
token stays in memory: a straight-through Gumbel sample D says which ones are kept, and a dropped token is hidden from
the others' attention. In inference the top ρ^s·N by score go on, exactly as kept tokens do in DoViT. A segmenter needs a
value for every position: a dropped token has the one it had when it was dropped.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovit.export.model import DoViT, ModelConfig
from dovit.export.model.token_pass import TokenState
from dovit.export.model.vit import Attention, Layer

RATIO_WEIGHT = 2.0  # λ_ratio of DynamicViT


class Predictor(nn.Module):
    """Scores tokens: half of each one's features are its own, half the mean over the kept tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.score = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Tokens [B, M, E], `kept` [B, M, 1] in {0, 1} → log-probabilities [B, M, 2] of being kept and dropped."""
        own, shared = self.local(x).chunk(2, dim=2)  # each [B, M, E/2]
        if kept is None:
            mean = shared.mean(dim=1, keepdim=True)
        else:
            mean = (shared * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp(min=1)
        return self.score(torch.cat([own, mean.expand_as(shared)], dim=2)).float().log_softmax(dim=2)


class DynamicViT(DoViT):
    """A DoViT whose heads are prediction modules: they stand where `config.decisions` says, and keep `ratio` a stage."""

    def __init__(self, config: ModelConfig, ratio: float) -> None:
        super().__init__(config)
        self.ratio = ratio
        self.heads = nn.ModuleList(Predictor(config.backbone.embed_dim) for _ in config.decisions)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens kept after each stage: ⌊ρ^s · N⌋."""
        return tuple(int(self.ratio ** (stage + 1) * self.config.tokens) for stage in range(len(self.heads)))

    def top_scores(self, number: int, state: TokenState) -> tuple[Tensor, Tensor]:
        """The policy of inference. In the place of a confidence stands the probability of being dropped [B, M]."""
        scores = self.heads[number](state.tokens[:, self.config.backbone.prefix :])
        dropped = scores[..., 1].exp()
        return dropped, dropped.argsort(dim=1, stable=True)[:, : self.counts[number]].sort(dim=1).values

    def sampled(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The forward pass of training: logits [B, C, h', w'] and the loss Σ_s (ρ^s - mean D_s)² / stages."""
        prefix = self.config.backbone.prefix
        tokens = self.embed(image)  # [B, P+N, E]
        batch, _, _ = tokens.shape
        kept = tokens.new_ones(batch, self.config.tokens, 1)  # D
        full = tokens[:, prefix:]  # a position's value when it was dropped, or now
        taps: list[Tensor] = []
        ratio_loss = tokens.new_zeros(())
        rotation = self.backbone.context(torch.arange(self.config.tokens, device=tokens.device).expand(batch, -1))
        for number, block in enumerate(self.config.blocks):
            visible = torch.cat([kept.new_ones(batch, prefix, 1), kept], dim=1)[:, :, 0]  # [B, P+N]
            for layer in block:
                tokens = hidden_layer(cast(Layer, self.backbone.layers[layer]), tokens, visible, *rotation)
                if layer + 1 in self.config.taps:
                    taps.append(torch.lerp(full, tokens[:, prefix:], kept))
            full = torch.lerp(full, tokens[:, prefix:], kept)  # of the tokens that this block still computed
            if number < len(self.heads):
                scores = self.heads[number](tokens[:, prefix:], kept)
                kept = F.gumbel_softmax(scores, hard=True, dim=2)[..., :1] * kept
                ratio_loss = ratio_loss + (self.ratio ** (number + 1) - kept.mean(dim=1)).square().mean()
        return self.decode(full, taps), ratio_loss / max(len(self.heads), 1)


def hidden_layer(layer: Layer, x: Tensor, visible: Tensor, *rotation: Tensor) -> Tensor:
    """`layer` on tokens x [B, T, E] in which only those with `visible` [B, T] = 1 are seen by others."""
    x = x + _hidden_attention(layer.attn, layer.norm1(x), visible, *rotation)
    return x + layer.mlp(layer.norm2(x))


def _hidden_attention(attention: Attention, x: Tensor, visible: Tensor, *rotation: Tensor) -> Tensor:
    """Softmax over the visible tokens and the token itself, differentiable in `visible` (DynamicViT's (11))."""
    batch, count, dim = x.shape
    q, k, v = attention.project(x, *rotation)  # each [B, heads, T, E/heads]
    scores = (q @ k.transpose(2, 3)).float() * (dim // attention.heads) ** -0.5  # [B, heads, T, T]
    itself = torch.eye(count, device=x.device, dtype=torch.float32)
    seen = visible.float()[:, None, None, :] * (1 - itself) + itself
    weights = (scores - scores.amax(dim=3, keepdim=True).detach()).exp() * seen
    weights = weights / weights.sum(dim=3, keepdim=True)
    return attention.proj((weights.to(v.dtype) @ v).transpose(1, 2).reshape(batch, count, dim))


def predictor_macs(dim: int) -> int:
    """Multiply-accumulates of one token in a prediction module."""
    return dim * dim + dim * (dim // 2) + (dim // 2) * (dim // 4) + (dim // 4) * 2
