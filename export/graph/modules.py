"""The parts of a model that are traced, each as one module."""

from __future__ import annotations

from copy import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from dovit.export.model import DoViT, ModelConfig
from dovit.export.model.dovit import TOKEN_PASS
from dovit.export.model.eomt import Eomt
from dovit.export.model.heads import DecisionHead
from dovit.export.model.token_pass import Cells, TokenState, add_cells, confidence, keep_least_confident
from dovit.export.model.vit import Backbone

_Module = TypeVar("_Module", bound=nn.Module)


class Method(nn.Module):
    """One of a model's methods as a module that can be traced. Layers and the parts of token pass, which are traced on
    their own and which these methods do not read, are left out: each weight is one more input of a trace, and 24 layers' take
    two seconds."""

    def __init__(self, model: DoViT) -> None:
        super().__init__()
        self.model = replaced(model, backbone=replaced(model.backbone, layers=None), **dict.fromkeys(TOKEN_PASS))


def replaced(module: _Module, **submodules: nn.Module | None) -> _Module:
    """A copy of `module` that shares its weights, with other submodules."""
    copied = copy(module)
    copied._modules = module._modules | submodules
    return copied


class Embed(Method):
    """DoViT.embed: image [B, H, W, 3] uint8 → tokens [B, P+N, E]."""

    def forward(self, image: Tensor) -> Tensor:
        return self.model.embed(image)


class Decode(Method):
    """Norm, decoder, upsampling and argmax: full [B, N, E] → logits [B, C, h', w'], labels [B, H, W]."""

    def forward(self, full: Tensor, *taps: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.decode(full, list(taps))
        labels = self.model.resize_logits(logits).argmax(dim=1)
        return logits, labels.to(torch.uint8 if self.model.config.classes <= 256 else torch.int16)


class Join(nn.Module):
    """EoMT's queries before the tokens: [B, P+M, E] and rotary positions → the same with Q tokens more."""

    def __init__(self, decoder: Eomt) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, *rotation: Tensor) -> tuple[Tensor, ...]:
        return self.decoder.join(tokens, *rotation)


class Leave(Method):
    """DoViT.leave: the tokens without the queries, and what the queries predict."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.leave(tokens)


class TokenHead(nn.Module):
    """A head of kernel 1 on the kept tokens alone: tokens [B, P+M, E] → confidence [B, M].

    `least_kept`: how many tokens of each image must stay, 0 or 1."""

    def __init__(self, head: DecisionHead, prefix: int, least_kept: int) -> None:
        super().__init__()
        self.head, self.prefix, self.least_kept = head, prefix, least_kept

    def forward(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self.prefix :]  # [B, M, E]
        if self.head.is_linear:
            logits = self.head.of_tokens(patches).transpose(1, 2)  # [B, C, M]
        else:
            logits = self.head(patches.transpose(1, 2)[..., None])[..., 0]
        q = confidence(logits)
        return keep_least_confident(q, self.least_kept)


class MapHead(nn.Module):
    """A head of a larger kernel on the reconstructed map: full [B, N, E], index [B, M] → confidence [B, M]."""

    def __init__(self, head: nn.Module, grid: tuple[int, int], least_kept: int) -> None:
        super().__init__()
        self.head, self.grid, self.least_kept = head, grid, least_kept

    def forward(self, full: Tensor, index: Tensor) -> Tensor:
        q = confidence(self.head(full.transpose(1, 2).unflatten(2, self.grid)).flatten(2)).gather(1, index.long())
        return keep_least_confident(q, self.least_kept)


class Start(nn.Module):
    """The state before any decision from tokens [B, P+N, E]: index, full, stopped_sum."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = tokens[:, self.prefix :]
        index = torch.arange(patches.shape[1], dtype=torch.int32).expand(patches.shape[0], -1)
        return index, patches, torch.zeros(patches.shape[0], patches.shape[2])


class AddCells(nn.Module):
    """`token_pass.add_cells` on tokens [B, P+N, E]."""

    def __init__(self, prefix: int, config: ModelConfig) -> None:
        super().__init__()
        self.prefix, self.cells = prefix, cast(Cells, config.cells)

    def forward(self, tokens: Tensor) -> Tensor:
        return add_cells(TokenState.start(tokens, self.prefix), self.prefix, self.cells).tokens


class Context(nn.Module):
    """Backbone.context: index [B, M] → what the layers take beside the tokens."""

    def __init__(self, backbone: Backbone, merged: bool) -> None:
        super().__init__()
        self.backbone, self.merged = replaced(backbone, layers=None), merged

    def forward(self, index: Tensor) -> tuple[Tensor, ...]:
        return self.backbone.context(index, merged=self.merged)
