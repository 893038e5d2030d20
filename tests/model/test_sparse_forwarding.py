"""Whole sparse forwarding against a model that never drops a token: the full sequence with a mask, stopped tokens frozen."""

from __future__ import annotations

import pytest
import torch
from masked import masked_forward
from models import BACKBONES, DECODERS, HEADS, random_images, randomised, small_config, spreading_thresholds
from torch import Tensor

from dovit.export.model import DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import CorrectionConfig, LensConfig


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
    [(decoder, None) for decoder in (*DECODERS, "segmenter-linear-taps")]
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


@pytest.mark.parametrize("head", ["conv", "lens"])
@pytest.mark.parametrize("taps", [(1, 3, 5, 6), (2, 3, 4, 6), (1, 4, 6), (3, 6)])
@pytest.mark.parametrize("layers", [(2, 4), (1, 3, 5), (2,), (5,)])
def test_taps_anywhere(layers: tuple[int, ...], taps: tuple[int, ...], head: str) -> None:
    model = double(small_config("setr-mla", layers=layers, taps=taps, head=head))
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
