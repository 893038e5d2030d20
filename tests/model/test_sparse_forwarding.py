"""Whole sparse forwarding against a model that never drops a token: the full sequence with a mask, stopped tokens frozen."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from models import BACKBONES, DECODERS, HEADS, random_images, randomised, small_config, spreading_thresholds
from torch import Tensor

from dovit.export.model import DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import CorrectionConfig, LensConfig
from dovit.export.model.lens import Lens, TokenwiseMap
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
    (h, w), prefix = grid, x.shape[1] - left.shape[1]
    u = torch.where(left[..., None], alone[:, prefix:], read[:, prefix:])
    mean, variance = u.mean(dim=2, keepdim=True), u.var(dim=2, keepdim=True, correction=0)
    u = ((u - mean) / (variance + 1e-6).sqrt() * part.norm.weight + part.norm.bias).unflatten(1, grid)  # [B, h, w, E]
    weight = part.depthwise.weight[:, 0]  # [E, k, k]
    reach = weight.shape[1] // 2
    seen = u + part.depthwise.bias
    for row, column in itertools.product(range(h), range(w)):
        for down, across in itertools.product(range(-reach, reach + 1), repeat=2):
            if 0 <= row + down < h and 0 <= column + across < w:
                seen[:, row, column] += weight[:, reach + down, reach + across] * u[:, row + down, column + across]
    hidden = torch.einsum("oi,bti->bto", part.hidden.weight, seen.flatten(1, 2)) + part.hidden.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    added = torch.einsum("oi,bti->bto", part.out.weight, hidden)
    return torch.cat([alone[:, :prefix], alone[:, prefix:] + added], dim=1)


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
            taps.append(as_map(model.backbone.norm(x) if normed else x))
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
    final = model.backbone.norm(torch.where(torch.cat([always > 0, left], dim=1)[..., None], x, read))
    if queries:
        return eomt_scores(model, final[:, :queries], as_map(final[:, queries:])), masks
    return model.decoder(as_map(final), taps), masks


@torch.no_grad()
def compare(
    model: DoViT, images: Tensor, xi: tuple[float, ...], capacities: list[int] | None = None
) -> list[list[int]]:
    """Assert that DoViT and the masked model agree; the number of tokens kept by each image's decisions."""
    output = model(images, xi, capacities)
    logits, masks = masked_forward(model, images, xi, capacities)
    scale = logits.abs().max()
    assert float((output.logits - logits).abs().max() / scale) < 1e-5
    counts = []
    for image in range(len(images)):
        if capacities is None:
            kept = [decision.kept[0].tolist() for decision in output.decisions[image]]
        else:
            kept = [decision.kept[image].tolist() for decision in output.decisions[0]]
        expected = [mask[image].nonzero().flatten().tolist() for mask in masks]
        assert kept == expected[: len(kept)]
        assert not any(expected[len(kept) :])  # the backbone ended early
        counts.append([len(k) for k in kept])
    return counts


def compare_schedules(model: DoViT, images: Tensor) -> tuple[float, ...]:
    """Assert that they agree in both schedules, where each decision keeps some tokens and stops some; the ξ of the exact one."""
    xi = spreading_thresholds(model, images)
    assert all(24 > first > second > 0 for first, second in compare(model, images, xi))
    capacities = [0, 6, 12, 15, 18, 24]
    compare(model, images, spreading_thresholds(model, images, (0.55, 0.6), capacities), capacities)
    return xi


def double(config: ModelConfig, seed: int = 0) -> DoViT:
    return randomised(config, seed).double()


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_sparse_forwarding_is_masked_forwarding(decoder: str, head: str, prefix: int) -> None:
    model = double(small_config(decoder, prefix, head))
    images = random_images(model.config, batch=3)
    xi = spreading_thresholds(model, images)
    counts = compare(model, images, xi)
    assert len({tuple(c) for c in counts}) > 1  # images differ
    assert all(24 > first > second > 0 for first, second in counts)  # and each decision stops some
    capacities = [0, 6, 12, 15, 18, 24]
    xi = spreading_thresholds(model, images, (0.55, 0.6), capacities)
    assert all(set(c) <= set(capacities) for c in compare(model, images, xi, capacities))


@pytest.mark.parametrize("head", ["conv", "setr-k3"])
@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "setr-mla"])
@pytest.mark.parametrize("family", BACKBONES)
def test_sparse_forwarding_of_other_backbones(family: str, decoder: str, head: str) -> None:
    """Registers, SwiGLU, rotary positions; four layers joined."""
    model = double(small_config(decoder, head=head, family=family))
    images = random_images(model.config, batch=3)
    counts = compare(model, images, spreading_thresholds(model, images))
    assert all(24 > first > second > 0 for first, second in counts)
    capacities = [0, 6, 12, 15, 18, 24]
    xi = spreading_thresholds(model, images, (0.55, 0.6), capacities)
    assert all(set(c) <= set(capacities) for c in compare(model, images, xi, capacities))


@pytest.mark.parametrize("head", ["lens", "neighbours"])
@pytest.mark.parametrize(
    ("decoder", "family"),
    [(decoder, None) for decoder in DECODERS if decoder != "setr-mla"]
    + [("segmenter-linear", "rotary"), ("eomt", "registers")],
)
def test_stopped_tokens_reach_the_decoder_through_a_lens(decoder: str, family: str | None, head: str) -> None:
    """Also where a decision keeps no token, and the backbone ends there."""
    model = double(small_config(decoder, head=head, family=family))
    images = random_images(model.config, batch=3)
    xi = compare_schedules(model, images)
    for ended in ((0.0, 0.0), (xi[0], 0.0), (1.0, 0.0), (1.0, 1.0)):
        compare(model, images, ended)
    with torch.no_grad():
        dense = model(images, (1.0, 1.0)).logits
        assert float((model(images, xi).logits - dense).abs().max()) > 0.01 * float(dense.abs().max())


@pytest.mark.parametrize("head", ["corrected", "corrected-unmerged"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_tokens_that_stay_are_corrected_after_each_block(prefix: int, head: str) -> None:
    model = double(small_config("segmenter-mask", prefix, head))
    images = random_images(model.config, batch=3)
    compare_schedules(model, images)
    plain = double(small_config("segmenter-mask", prefix, head.replace("corrected", "lens")))
    plain.load_state_dict({n: v for n, v in model.state_dict().items() if n in plain.state_dict()}, strict=False)
    with torch.no_grad():
        assert not torch.allclose(model(images, (0.3, 0.3)).logits, plain(images, (0.3, 0.3)).logits)
        torch.testing.assert_close(model(images, (1.0, 1.0)).logits, plain(images, (1.0, 1.0)).logits, rtol=0, atol=0)


def test_corrections_are_refused_where_the_decoder_reads_more_than_the_last_layer() -> None:
    for decoder in ("setr-mla", "segmenter-linear-taps", "eomt"):
        with pytest.raises(
            ValueError, match="corrections are for decoders that read the last layer's patch tokens alone"
        ):
            heads = [HeadConfig(layer=2, correction=CorrectionConfig())]
            small_config(decoder, layers=(2,), decisions=heads, thresholds=(0.5,))


@pytest.mark.parametrize("head", ["conv-unmerged", "lens-unmerged"])
@pytest.mark.parametrize(("decoder", "family"), [("segmenter-linear", None), ("setr-pup", None), ("eomt", "rotary")])
def test_without_merging_the_class_token_stays_as_it_is(decoder: str, family: str | None, head: str) -> None:
    model = double(small_config(decoder, head=head, family=family))
    assert not model.config.merge
    images = random_images(model.config, batch=3)
    xi = compare_schedules(model, images)
    with torch.no_grad():
        merging = double(small_config(decoder, head=head.removesuffix("-unmerged"), family=family))
        assert not torch.allclose(model(images, xi).logits, merging(images, xi).logits)


@pytest.mark.parametrize(
    ("decoder", "prefix", "head", "family"),
    [
        ("segmenter-linear", 1, "conv-cells", None),
        ("setr-pup", 0, "lens-cells", None),
        ("setr-mla", 2, "setr-k3-cells", None),
        ("segmenter-mask", 1, "corrected-cells", "registers"),
        ("segmenter-linear", 1, "lens-cells", "rotary"),
        ("segmenter-linear", 1, "neighbours-cells", None),
    ],
)
def test_merged_tokens_of_cells_count_as_often_as_tokens_have_stopped(
    decoder: str, prefix: int, head: str, family: str | None
) -> None:
    model = double(small_config(decoder, prefix, head, family=family))
    images = random_images(model.config, batch=3)
    xi = compare_schedules(model, images)
    for ended in ((0.0, 0.0), (xi[0], 0.0), (1.0, 0.0), (1.0, 1.0)):
        compare(model, images, ended)
    unmerged = double(small_config(decoder, prefix, head.replace("-cells", "-unmerged"), family=family))
    unmerged.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert not torch.allclose(model(images, xi).logits, unmerged(images, xi).logits)
        ours, theirs = (m(images, (1.0, 1.0)).logits for m in (model, unmerged))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)  # where none has stopped, nothing is merged


def test_cells_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"into the class token \(merge\) or by cell"):
        small_config(merge_cells=2)
    with pytest.raises(ValueError, match="an EoMT cannot be merged by cell"):
        small_config("eomt", head="conv-cells")
    with pytest.raises(ValueError, match=r"cells of 1×1 patches make 1537 tokens .* make the cells larger"):
        small_config(head="conv-unmerged", merge_cells=1, image_size=(512, 768))


def test_an_identity_lens_changes_nothing() -> None:
    """A new lens is the identity: the same model without it decides and computes the same."""
    plain = double(small_config("setr-pup", head="setr-k1"))
    decisions = [head.model_copy(update={"lens": LensConfig(hidden=8)}) for head in plain.config.decisions]
    lensed = DoViT(ModelConfig.model_validate({**plain.config.model_dump(), "decisions": decisions})).double().eval()
    lensed.load_state_dict(plain.state_dict() | {n: v for n, v in lensed.state_dict().items() if n.startswith("lens")})
    images = random_images(plain.config)
    xi = spreading_thresholds(plain, images)
    with torch.no_grad():
        one, other = plain(images, xi), lensed(images, xi)
    torch.testing.assert_close(one.logits, other.logits)
    assert [d.kept.tolist() for d in one.decisions[0]] == [d.kept.tolist() for d in other.decisions[0]]


@pytest.mark.parametrize("decoder", ["setr-mla", "segmenter-linear-taps"])
def test_a_lens_is_refused_where_the_decoder_taps_earlier_layers(decoder: str) -> None:
    with pytest.raises(ValueError, match="also reads layers"):
        small_config(decoder, head="lens")


def test_a_lens_is_refused_with_a_head_that_sees_neighbours() -> None:
    heads = [HeadConfig(layer=2, num_convs=1, kernel=3, lens=LensConfig())]
    with pytest.raises(ValueError, match="head of kernel 1"):
        small_config("setr-pup", decisions=heads, thresholds=(0.5,))


@pytest.mark.parametrize("layers", [(2, 4), (1, 3)])
@pytest.mark.parametrize("head", ["conv", "setr-k3"])
@pytest.mark.parametrize("family", [None, *BACKBONES])
def test_queries_join_the_tokens_that_are_left(family: str | None, head: str, layers: tuple[int, ...]) -> None:
    """EoMT; at ξ = 0 the token of lowest confidence stays, since the layers with queries have to run."""
    model = double(small_config("eomt", head=head, family=family, layers=layers))
    images = random_images(model.config, batch=3)
    counts = compare(model, images, spreading_thresholds(model, images))
    assert all(24 >= first >= second > 0 for first, second in counts) and min(counts) < [24, 24]
    capacities = [0, 6, 12, 15, 18, 24]
    xi = spreading_thresholds(model, images, (0.55, 0.6), capacities)
    assert all(set(c) <= set(capacities) for c in compare(model, images, xi, capacities))
    assert compare(model, images, (0.0, 0.0)) == [[1, 1]] * 3
    assert compare(model, images, (1.0, 0.0), [0, 1, 2, 24]) == [[24, 1]] * 3
    assert compare(model, images, (1.0, 1.0)) == [[24, 24]] * 3
    none = [torch.zeros(3, 0, dtype=torch.int64)] * 2
    with pytest.raises(ValueError, match="at least one token"):
        model(images, keeps=none)


@pytest.mark.parametrize("taps", [(1, 3, 5, 6), (2, 3, 4, 6), (1, 4, 6), (3, 6)])
@pytest.mark.parametrize("layers", [(2, 4), (1, 3, 5), (2,), (5,)])
def test_taps_anywhere(layers: tuple[int, ...], taps: tuple[int, ...]) -> None:
    model = double(small_config("setr-mla", layers=layers, taps=taps))
    images = random_images(model.config, batch=2)
    compare(model, images, spreading_thresholds(model, images))
    compare(model, images, spreading_thresholds(model, images, capacities=[0, 8, 16, 24]), [0, 8, 16, 24])


@pytest.mark.parametrize("capacities", [None, [0, 8, 24]])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("decoder", DECODERS)
def test_stopping_everything_ends_the_backbone_early(decoder: str, prefix: int, capacities: list[int] | None) -> None:
    model = double(small_config(decoder, prefix, layers=(2, 3, 4)))
    images = random_images(model.config, batch=2)
    assert compare(model, images, (-1.0, 0.5, 0.5), capacities) == [[0], [0]]
    assert compare(model, images, (1.0, -1.0, 0.5), capacities) == [[24, 0], [24, 0]]


def test_one_token_left() -> None:
    model = double(small_config())
    image = random_images(model.config)
    q = model(image, (2.0, 2.0)).decisions[0][0].confidence.flatten().double().sort().values
    assert compare(model, image, (float(q[:2].mean()), 1.0)) == [[1, 1]]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_threshold_of_one_is_the_dense_model(decoder: str) -> None:
    sparse = double(small_config(decoder, head="setr-k1"))
    dense = double(small_config(decoder, layers=()))
    missing = dense.load_state_dict(sparse.state_dict(), strict=False)
    assert all(key.startswith("heads.") for key in missing.unexpected_keys)
    assert not missing.missing_keys
    images = random_images(sparse.config, batch=3)
    expected = dense(images).logits
    for capacities in (None, [0, 8, 24]):
        output = sparse(images, (1.0, 1.0), capacities)
        assert all(d.kept.shape[1] == 24 for group in output.decisions for d in group)
        torch.testing.assert_close(output.logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_batch_is_its_images_one_by_one(decoder: str) -> None:
    model = randomised(small_config(decoder))
    images = random_images(model.config, batch=3)
    xi = spreading_thresholds(model, images)
    together = model(images, xi)
    assert len(together.decisions) == 3
    for image, logits, decisions in zip(images, together.logits, together.decisions, strict=True):
        alone = model(image[None], xi)
        assert torch.equal(alone.logits[0], logits)
        for one, other in zip(alone.decisions[0], decisions, strict=True):
            assert torch.equal(one.kept, other.kept)
            assert torch.equal(one.index, other.index)


def test_thresholds_default_to_the_configs() -> None:
    config = small_config()
    model = randomised(config)
    image = random_images(config)
    xi = spreading_thresholds(model, image)
    own = randomised(config.model_copy(update={"thresholds": xi}))
    assert torch.equal(own(image).logits, model(image, xi).logits)


def test_a_kernel_1_head_on_kept_tokens_is_the_head_on_the_map() -> None:
    """Only a kernel above 1 needs the map: HeadConfig.on_map decides it."""
    assert not HeadConfig(layer=1).on_map
    assert not HeadConfig(layer=1, num_convs=2, kernel=1).on_map
    assert not HeadConfig(layer=1, num_convs=0, kernel=3).on_map  # no convolution has that kernel
    assert HeadConfig(layer=1, num_convs=1, kernel=3).on_map
    assert HeadConfig(layer=1, concat=True, kernel=3).on_map
