"""The analytic counts against torch's own counter, and against the paper's Tables 1 and 2."""

from dataclasses import replace

import pytest
import torch
from models import BACKBONES, DECODERS, HEADS, random_images, randomised, small_config, spreading_thresholds
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dovit.export.macs import evaluate, step_macs
from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import SegmenterMaskDecoder, SetrUpDecoder, paper_decision_layers
from dovit.export.model.token_pass import TokenState

STOP_ALL, STOP_NONE = -1.0, 1.0


def counted(model: DoViT, image: torch.Tensor, thresholds: tuple[float, ...]) -> tuple[int, int, list[int]]:
    """(MACs of convolutions and linear layers, all MACs, tokens of each block that ran), by watching the model run."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(image, thresholds)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}  # 2 a MAC
    weighted = [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    weights = sum(flops.get(f"DoViT.{name}", 0) for name in weighted)
    kept = [decision.kept.shape[1] for decision in output.decisions[0]]
    tokens = [model.config.backbone.prefix + count for count in [model.config.tokens, *kept] if count]
    return weights // 2, flops["Global"] // 2, tokens


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_count_is_torchs(decoder: str, head: str) -> None:
    for prefix in (0, 1, 2):
        model = randomised(small_config(decoder, prefix, head, layers=(1, 3, 4)))
        image = random_images(model.config)
        steps = step_macs(model.config)
        assert len(steps) == 5
        some = spreading_thresholds(model, image)
        lengths = set()
        for thresholds in (some, (STOP_NONE,) * 3, (STOP_ALL,) * 3, (some[0], STOP_ALL, STOP_NONE)):
            paper, true, tokens = counted(model, image, thresholds)
            assert evaluate(steps, tokens) == (paper, true)
            lengths.add(len(tokens))
        assert lengths == {1, 2, 4}  # the backbone ended early in some


@pytest.mark.parametrize("family", BACKBONES)
def test_count_is_torchs_for_other_backbones(family: str) -> None:
    """SwiGLU, registers, rotary positions, joined layers."""
    model = randomised(small_config("segmenter-linear-taps", family=family))
    image = random_images(model.config)
    for thresholds in (spreading_thresholds(model, image), (STOP_NONE,) * 2, (STOP_ALL,) * 2):
        paper, true, tokens = counted(model, image, thresholds)
        assert evaluate(step_macs(model.config), tokens) == (paper, true)


@pytest.mark.parametrize("family", [None, "registers", "rotary"])
def test_count_is_torchs_with_queries(family: str | None) -> None:
    model = randomised(small_config("eomt", family=family))
    image = random_images(model.config)
    for thresholds in (spreading_thresholds(model, image), (STOP_NONE,) * 2, (0.0,) * 2):
        paper, true, tokens = counted(model, image, thresholds)
        assert evaluate(step_macs(model.config), tokens) == (paper, true)


@pytest.mark.parametrize("head", ["lens", "neighbours-cells"])
def test_a_lens_is_counted_for_every_token_of_its_step(head: str) -> None:
    """Against torch's counter over the lens alone: affine after layer 4, of two layers after layer 2; and lenses that see the
    patches around a token, of which the second part is only for patches, and its convolution is over all of them."""
    config = small_config("setr-pup", 2, head=head)
    without = config.model_copy(
        update={"decisions": tuple(h.model_copy(update={"lens": None}) for h in config.decisions)}
    )
    model, dim = DoViT(config), config.backbone.embed_dim
    for number in range(len(model.lenses)):
        first = config.prefix + config.tokens
        for tokens in (config.prefix, config.prefix + 1, first) if number or config.cells is None else (first,):
            state = TokenState.start(torch.zeros(1, first, dim), config.prefix)
            state = replace(state, tokens=torch.zeros(1, tokens, dim), index=state.index[:, : tokens - config.prefix])
            with FlopCounterMode(display=False) as counter:
                model.through_lens(number, state)
            step, plain = step_macs(config)[number], step_macs(without)[number]
            assert step.paper(tokens) - plain.paper(tokens) == counter.get_total_flops() // 2
            assert step.true(tokens) - plain.true(tokens) == counter.get_total_flops() // 2
    assert step_macs(config)[2:] == step_macs(without)[2:]


def test_a_refinement_is_counted_for_every_patch() -> None:
    config = small_config("setr-pup", 2, head="neighbours")
    model, without = DoViT(config), config.model_copy(update={"refinement": None})
    full = torch.zeros(1, config.tokens, config.backbone.embed_dim)
    with FlopCounterMode(display=False) as counter:
        model.refinement(full)
    *before, decoder = step_macs(config)
    *same, plain = step_macs(without)
    assert decoder.paper(0) - plain.paper(0) == counter.get_total_flops() // 2 > 0
    assert before == same and step_macs(config.without_token_pass) == step_macs(without.without_token_pass)


def test_a_correction_is_counted_for_every_patch_token_of_the_next_step() -> None:
    config = small_config("setr-pup", 2, head="corrected")
    without = config.model_copy(
        update={"decisions": tuple(h.model_copy(update={"correction": None}) for h in config.decisions)}
    )
    for number, correction in enumerate(DoViT(config).corrections, start=1):
        for tokens in (2, 3, 26):
            with FlopCounterMode(display=False) as counter:
                correction(torch.zeros(1, tokens, config.backbone.embed_dim))
            step, plain = step_macs(config)[number], step_macs(without)[number]
            assert step.paper(tokens) - plain.paper(tokens) == counter.get_total_flops() // 2
    assert step_macs(config)[0] == step_macs(without)[0] and step_macs(config)[3:] == step_macs(without)[3:]


@pytest.mark.parametrize("tokens", [[], [25, 25, 25, 25]])
def test_there_is_a_token_count_for_each_block(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="3 blocks"):
        evaluate(step_macs(small_config()), tokens)


# --- the paper's tables: network, size, then the table's own numbers ---

CITYSCAPES = [  # Table 1: M parameters and GFLOPs of the dense model at 1024×2048, M parameters with decision heads
    ("setr", "large", 305.74, 2484.27, 306.54),
    ("setr", "base", 87.62, 703.28, 88.23),  # ViT-B and DeiT-B
    ("setr", "small", 22.57, 177.99, 22.89),  # ViT-S and DeiT-S
    ("segmenter", "large", 333.82, 2705.40, 334.62),
    ("segmenter", "base", 103.38, 826.99, 103.99),
    ("segmenter", "small", 26.47, 208.05, 26.79),
]
ADE20K = [  # Table 2: GFLOPs of the dense model at 512×512
    ("setr", "base", 88.54),  # ViT-B and DeiT-B
    ("setr", "small", 22.82),
    ("segmenter", "small", 26.57),
]


def paper_config(network: str, size: str, image: tuple[int, int], classes: int, heads: bool = False) -> ModelConfig:
    """The tables' networks: SETR is SETR-Naive, Segmenter is Segmenter-Mask.

    The decision heads are SETR's auxiliary heads with one convolution, in Segmenter too: a bare 1×1 convolution to the
    classes would add 0.04 M parameters to ViT-B, where the table has 0.6.
    """
    backbone = BackboneConfig.of_size(size, final_norm=network == "segmenter")
    dim = backbone.embed_dim
    layers = paper_decision_layers(backbone.depth) if heads else ()
    return ModelConfig(
        image_size=image,
        classes=classes,
        backbone=backbone,
        decoder=SetrUpDecoder(kind="setr-naive")
        if network == "setr"
        else SegmenterMaskDecoder(embed_dim=dim, heads=dim // 64, mlp_dim=4 * dim),
        decisions=tuple(HeadConfig(layer=layer, norm=True, num_convs=1, kernel=1) for layer in layers),
        thresholds=(0.985,) * len(layers),
    )


def dense_macs(config: ModelConfig) -> tuple[int, int]:
    return evaluate(step_macs(config), [config.tokens + config.backbone.prefix])


def norms_as_mmcv_counts(config: ModelConfig) -> int:
    """What mmcv's get_model_complexity_info adds to the products: 2 for each value that a norm with weights sees, 1 for
    each value that a ReLU sees and for the bias of each value of a convolution."""
    dim, decoder, patches = config.backbone.embed_dim, config.decoder, config.tokens
    macs = config.backbone.depth * 2 * 2 * (patches + 1) * dim
    macs += patches * dim  # patch embedding's bias
    if isinstance(decoder, SetrUpDecoder):
        positions = patches * decoder.up_scale**2
        return macs + 2 * patches * dim + 3 * patches * decoder.channels + positions * config.classes
    tokens = patches + config.classes
    return macs + 2 * (patches + 1) * dim + (2 * decoder.layers + 1) * 2 * tokens * dim + 2 * patches * config.classes


@pytest.mark.parametrize(("network", "size", "parameters", "gflops", "with_heads"), CITYSCAPES)
def test_table_1(network: str, size: str, parameters: float, gflops: float, with_heads: float) -> None:
    config = paper_config(network, size, (1024, 2048), 19)
    paper, true = dense_macs(config)
    assert paper / 1e9 == pytest.approx(gflops, rel=0.001)
    assert (paper + norms_as_mmcv_counts(config)) / 1e9 == pytest.approx(gflops, abs=0.01)  # as exact as the table
    assert 2.3 < true / paper < 4.5
    # the table's parameters are those of a model trained on 768×768 crops, with 48·48 positional embeddings
    for heads, expected in ((False, parameters), (True, with_heads)):
        with torch.device("meta"):
            model = DoViT(paper_config(network, size, (768, 768), 19, heads))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(("network", "size", "gflops"), ADE20K)
def test_table_2(network: str, size: str, gflops: float) -> None:
    config = paper_config(network, size, (512, 512), 150)
    paper, _ = dense_macs(config)
    assert paper / 1e9 == pytest.approx(gflops, rel=0.0015)
    assert (paper + norms_as_mmcv_counts(config)) / 1e9 == pytest.approx(gflops, abs=0.01)


def test_most_of_a_large_image_is_attention_that_the_paper_does_not_count() -> None:
    paper, true = dense_macs(paper_config("setr", "base", (1024, 2048), 19))
    assert true / paper == pytest.approx(2.76, abs=0.005)
