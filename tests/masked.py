"""Token pass written another way: every token goes through every layer behind a mask, and stopped ones stay as they are."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dovit.export.model import DoViT
from dovit.export.model.lens import Lens, Neighbours, Refinement, TokenwiseMap
from dovit.export.model.vit import Layer


def cells_of(grid: tuple[int, int], side: int) -> list[list[int]]:
    """The patches of each cell of side×side patches; none where side is 0."""
    places = itertools.product(*(range(0, n, side) for n in grid)) if side else ()
    return [
        [
            r * grid[1] + c
            for r in range(row, min(row + side, grid[0]))
            for c in range(column, min(column + side, grid[1]))
        ]
        for row, column in places
    ]


def turned(x: Tensor, periods: tuple[float, ...], grid: tuple[int, int], side: int) -> Tensor:
    """Rotary positions as complex numbers: channel c and channel c + d/2 of the patches of x [B, heads, T, d] are real and
    imaginary part, and each patch's are multiplied by exp(i·angle), and before them each merged token's, which is where its
    cell's patches are on average. Prefix tokens come first and stay as they are."""
    patches = list(itertools.product(*map(range, grid)))
    cells = [tuple(sum(patches[p][k] for p in cell) / len(cell) for k in (0, 1)) for cell in cells_of(grid, side)]
    half, prefix = x.shape[-1] // 2, x.shape[2] - len(cells) - len(patches)
    angles = [
        [
            2 * math.pi * (2 * (place + 0.5) / count - 1) / period
            for place, count in zip(at, grid, strict=True)
            for period in periods
        ]
        for at in [*cells, *patches]
    ]  # of the row first, then of the column
    numbers = torch.complex(x[..., :half], x[..., half:])
    factor = torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    numbers = torch.cat([numbers[:, :, :prefix], numbers[:, :, prefix:] * factor], dim=2)
    return torch.cat([numbers.real, numbers.imag], dim=-1)


def masked_layer(
    layer: Layer, x: Tensor, weight: Tensor, rotary: tuple[tuple[float, ...], tuple[int, int], int] | None = None
) -> Tensor:
    """`layer` on all tokens x [B, T, E]: each is a key as often as `weight` [B, T] says; those of 0 stay as they are."""
    batch, count, dim = x.shape
    heads = layer.attn.heads
    q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in layer.attn.qkv(layer.norm1(x)).chunk(3, dim=2))
    if rotary is not None:
        q, k = turned(q, *rotary), turned(k, *rotary)
    scores = q @ k.transpose(2, 3) / math.sqrt(dim // heads)  # [B, heads, T, T]
    shares = (scores - scores.amax(dim=3, keepdim=True)).exp() * weight[:, None, None, :]
    mixed = (shares / shares.sum(dim=3, keepdim=True)).nan_to_num() @ v
    y = x + layer.attn.proj(mixed.transpose(1, 2).reshape(batch, count, dim))
    y = y + layer.mlp(layer.norm2(y))
    return torch.where(weight[..., None] > 0, y, x)


def through_map(lens: TokenwiseMap, x: Tensor) -> Tensor:
    """A x + b + W₂ gelu(W₁ x + b₁) of each token x [B, T, E], with gelu by the error function."""
    y = torch.einsum("oi,bti->bto", lens.linear.weight, x) + lens.linear.bias
    if lens.hidden is None:
        return y
    hidden = torch.einsum("oi,bti->bto", lens.hidden.weight, x) + lens.hidden.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return y + torch.einsum("oi,bti->bto", lens.out.weight, hidden)


def through_lens(lens: Lens, x: Tensor, left: Tensor, read: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the lens makes of x [B, T, E]. One of a kernel larger than 1 also reads the patches around, of which `left` [B, N]
    have not stopped and the decoder reads `read` [B, T, E] of the others: a sum over patches, nothing beyond the border."""
    alone, part = through_map(lens, x), lens.neighbours
    if part is None:
        return alone
    prefix = x.shape[1] - left.shape[1]
    added = from_neighbours(part, torch.where(left[..., None], alone[:, prefix:], read[:, prefix:]), grid)
    return torch.cat([alone[:, :prefix], alone[:, prefix:] + added], dim=1)


def from_neighbours(part: Neighbours | Refinement, full: Tensor, grid: tuple[int, int]) -> Tensor:
    """W₂ gelu(W₁ (u + D u) + b₁) of the patches' `full` [B, N, E]: D u is a sum over patches, nothing beyond the border."""
    h, w = grid
    mean, variance = full.mean(dim=2, keepdim=True), full.var(dim=2, keepdim=True, correction=0)
    u = (full - mean) / (variance + 1e-6).sqrt() * part.norm.weight + part.norm.bias
    u = u.unflatten(1, grid)  # [B, h, w, E]
    weight = part.depthwise.weight[:, 0]  # [E, k, k]
    reach = weight.shape[1] // 2
    seen = u + part.depthwise.bias
    for row, column in itertools.product(range(h), range(w)):
        for down, across in itertools.product(range(-reach, reach + 1), repeat=2):
            if 0 <= row + down < h and 0 <= column + across < w:
                seen[:, row, column] += weight[:, reach + down, reach + across] * u[:, row + down, column + across]
    hidden = torch.einsum("oi,bti->bto", part.hidden.weight, seen.flatten(1, 2)) + part.hidden.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return torch.einsum("oi,bti->bto", part.out.weight, hidden)


def eomt_scores(model: DoViT, queries: Tensor, patches: Tensor) -> Tensor:
    """EoMT's semantic scores [B, C, H, W] from its normed queries [B, Q, E] and patches [B, E, h, w]."""
    decoder = model.decoder
    classes = F.softmax(queries @ decoder.class_head.weight.T + decoder.class_head.bias, dim=2)
    masks = queries
    for number, linear in enumerate(decoder.mask_head):
        masks = linear(F.gelu(masks) if number else masks)
    for block in decoder.upscale:
        patches = F.gelu(F.conv_transpose2d(patches, block.conv1.weight, block.conv1.bias, stride=2))
        patches = F.conv2d(patches, block.conv2.weight, padding=1, groups=patches.shape[1])
        mean, variance = patches.mean(1, keepdim=True), patches.var(1, keepdim=True, correction=0)
        weight, bias = (v[None, :, None, None] for v in (block.norm.weight, block.norm.bias))
        patches = (patches - mean) / (variance + 1e-6).sqrt() * weight + bias
    products = torch.einsum("bqe,behw->bqhw", masks, patches)
    products = F.interpolate(products, model.config.image_size, mode="bilinear")
    return torch.einsum("bqc,bqhw->bchw", classes[:, :, :-1], products.sigmoid())


def masked_forward(
    model: DoViT, images: Tensor, xi: tuple[float, ...], capacities: list[int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Logits, and [B, N] bool of the tokens left after each decision. Every token is in every layer, behind a mask."""
    config = model.config
    (h, w), cells = config.grid, cells_of(config.grid, config.merge_cells)
    prefix = config.backbone.prefix + len(cells)

    def as_map(x: Tensor) -> Tensor:
        return x[:, prefix:].transpose(1, 2).reshape(len(x), -1, h, w)

    x = model.embed(images)
    before, patches = x[:, : config.backbone.prefix], x[:, config.backbone.prefix :]
    x = torch.cat([before, x.new_zeros(len(images), len(cells), x.shape[2]), patches], dim=1)
    left = torch.ones(len(images), config.tokens, dtype=torch.bool)
    always = torch.ones(len(images), prefix)  # how often each is a key
    always[:, config.backbone.prefix :] = 0
    taps, masks = [], []
    read = x.clone()  # what the decoder reads of stopped tokens, where decisions have lenses
    queries = 0
    rotary = (config.backbone.rotary, config.grid, config.merge_cells) if config.backbone.rotary else None
    normed = config.decoder.kind == "segmenter-linear"  # SETR-MLA's neck has norms of its own
    for number, layer in enumerate(model.backbone.layers, start=1):
        if config.decoder.kind == "eomt" and number == config.backbone.depth - config.decoder.blocks + 1:
            queries = config.decoder.queries
            x = torch.cat([model.decoder.query.expand(len(x), -1, -1), x], dim=1)
            read = torch.cat([x[:, :queries], read], dim=1)
            always = torch.ones(len(images), queries + prefix)
        x = masked_layer(layer, x, torch.cat([always, left.float()], dim=1).to(x.dtype), rotary)
        ends = [*(decision.layer for decision in config.decisions[1:]), config.backbone.depth]
        for decision, correction, end in zip(config.decisions, model.corrections, ends, strict=True):
            if decision.correction is None or end != number:
                continue
            for image in range(len(images)):
                staying = prefix + left[image].nonzero().flatten()
                moved = through_map(correction, x[image : image + 1, staying])[0]
                x[image, staying] += (1 - left[image].double().mean()) * (moved - x[image, staying])
        if number in config.taps:
            tapped = torch.where(torch.cat([always > 0, left], dim=1)[..., None], x, read)
            taps.append(as_map(model.backbone.norm(tapped) if normed else tapped))
        for head, lens, decision, threshold in zip(model.heads, model.lenses, config.decisions, xi, strict=True):
            if decision.layer != number:
                continue
            mapped = through_lens(lens, x, left, read, config.grid) if decision.lens else x
            q = head(as_map(mapped)).softmax(dim=1).amax(dim=1).flatten(1)  # [B, N]
            stay = left & ~(q > threshold)
            if config.decoder.kind == "eomt":  # the least confident token stays
                stay[range(len(images)), q.masked_fill(~left, math.inf).argmin(dim=1)] = True
            if capacities is not None:
                capacity = min(c for c in capacities if c >= int(stay.sum(dim=1).max()))
                for image in range(len(images)):
                    waiting = sorted(
                        (left & ~stay)[image].nonzero().flatten().tolist(), key=lambda i: float(q[image, i])
                    )
                    stay[image, waiting[: capacity - int(stay[image].sum())]] = True
            stopping = torch.cat([torch.zeros_like(always).bool(), left & ~stay], dim=1)
            for image, (number_of_cell, cell) in itertools.product(range(len(images)), enumerate(cells)):
                token = config.backbone.prefix + number_of_cell
                count = float(always[image, token])
                for patch in cell:
                    if left[image, patch] and not stay[image, patch]:  # a running mean
                        x[image, token] = (count * x[image, token] + x[image, prefix + patch]) / (count + 1)
                        count += 1
                always[image, token] = count
            read = torch.where(stopping[..., None], mapped, read)
            left = stay
            masks.append(left)
            for image in range(len(images)):
                if config.merge and prefix and not left[image].all():
                    x[image, 0] = (x[image, 0] + x[image, prefix:][~left[image]].mean(dim=0)) / 2
    final = torch.where(torch.cat([always > 0, left], dim=1)[..., None], x, read)
    if config.refinement is not None:
        final[:, prefix:] += from_neighbours(model.refinement, final[:, prefix:], config.grid)
    final = model.backbone.norm(final)
    if queries:
        return eomt_scores(model, final[:, :queries], as_map(final[:, queries:])), masks
    return model.decoder(as_map(final), taps), masks
