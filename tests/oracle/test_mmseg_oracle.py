"""The oracle itself: every variant builds, runs, and is determined by its seed."""

import pickle

import numpy as np
import pytest
import torch

from oracle import mmseg

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("mmsegmentation")]

CASES = [
    ("setr-naive", "ade20k", 4),
    ("setr-naive", "cityscapes", 4),
    ("setr-pup", "ade20k", 16),
    ("setr-pup", "cityscapes", 16),
    ("setr-mla", "ade20k", 4),
    ("setr-mla", "cityscapes", 4),
    ("segmenter-mask", "ade20k", 1),
    ("segmenter-linear", "ade20k", 1),
]  # variant, dataset, upsampling inside the decode head
AUX_SCALES = {"setr-naive-ade20k": 16, "setr-naive-cityscapes": 4, "setr-pup-ade20k": 16, "setr-pup-cityscapes": 16}
HEIGHT, WIDTH = 64, 96


def small(variant: str, dataset: str, **changes):
    sizes = {"classes": 19, "embed_dim": 64, "depth": 4, "heads": 2, "decoder_channels": 32}
    return mmseg.build(variant, dataset=dataset, image_size=(HEIGHT, WIDTH), **sizes, **changes)


def random_image(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_moderate(logits: torch.Tensor) -> None:
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert 0.1 < logits.std() < 20


@pytest.mark.parametrize(("variant", "dataset", "scale"), CASES)
def test_logits(variant, dataset, scale):
    model = small(variant, dataset)
    logits = mmseg.encode_decode(model, random_image())
    assert logits.shape == (19, HEIGHT, WIDTH)
    assert_moderate(logits)
    assert mmseg.decoder_logits(model, random_image()).shape == (19, HEIGHT // 16 * scale, WIDTH // 16 * scale)


@pytest.mark.parametrize("variant", mmseg.VARIANTS)
def test_the_seed_determines_the_logits(variant):
    logits = [mmseg.encode_decode(small(variant, "ade20k", seed=seed), random_image()) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=0.1)


@pytest.mark.parametrize(("variant", "dataset", "scale"), CASES)
def test_every_weight_matters(variant, dataset, scale):
    """No tensor keeps a value (0, 1) under which a forgotten or swapped key would go unnoticed."""
    for name, tensor in small(variant, dataset).state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert tensor.std() > 1e-3, name
        if name.endswith("running_var"):
            assert tensor.min() > 0, name


@pytest.mark.parametrize(("variant", "dataset"), [case[:2] for case in CASES if case[0].startswith("setr")])
def test_auxiliary_heads(variant, dataset):
    model = small(variant, dataset)
    scale = AUX_SCALES.get(f"{variant}-{dataset}", 1)
    assert len(model.auxiliary_head) == (4 if variant == "setr-mla" else 3)
    for k in range(len(model.auxiliary_head)):
        logits = mmseg.auxiliary_logits(model, random_image(), k)
        assert logits.shape == (19, HEIGHT // 16 * scale, WIDTH // 16 * scale)
        assert_moderate(logits)


@pytest.mark.parametrize("variant", mmseg.VARIANTS)
def test_slide_inference(variant):
    model = small(variant, "ade20k")
    one_window = random_image()
    torch.testing.assert_close(mmseg.slide_inference(model, one_window), mmseg.encode_decode(model, one_window))
    logits = mmseg.slide_inference(model, random_image(80, 130), stride=(40, 50))
    assert logits.shape == (19, 80, 130)
    assert_moderate(logits)
    assert model.test_cfg.stride != (40, 50)


def test_the_stride_keeps_its_ratio_to_the_crop():
    assert small("setr-pup", "ade20k").test_cfg.stride == (42, 63)
    assert small("segmenter-mask", "ade20k").test_cfg.stride == (60, 90)


@pytest.mark.parametrize("variant", mmseg.VARIANTS)
def test_layer_tokens_and_features(variant):
    model = small(variant, "ade20k")
    states = mmseg.layer_tokens(model, random_image())
    patches = HEIGHT // 16 * WIDTH // 16
    assert [state.shape for state in states] == [(patches + (variant != "setr-mla"), 64)] * 5
    features = mmseg.backbone_features(model, random_image())
    assert len(features) == len(model.backbone.out_indices)
    if variant.startswith("setr"):  # no final norm
        torch.testing.assert_close(features[-1].flatten(1).T, states[-1][-patches:])


def test_channels_are_rgb():
    model = small("setr-naive", "ade20k")
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    expected = torch.tensor([(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    torch.testing.assert_close(mmseg.preprocess(model, red)[0, :, 0, 0], expected)


def test_patch_bias_is_optional():
    key = "backbone.patch_embed.projection.bias"
    assert key not in small("setr-naive", "ade20k").state_dict()
    assert key in small("setr-naive", "ade20k", patch_bias=True).state_dict()


@pytest.mark.parametrize("layout", ["0.x", "1.x"])
def test_a_published_checkpoint_loads_weights_only(layout, tmp_path):
    model = small("segmenter-mask", "ade20k")
    mmseg.save_checkpoint(model, tmp_path / "model.pth", layout=layout)
    checkpoint = torch.load(tmp_path / "model.pth", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    meta = checkpoint["meta"]
    assert len(meta["CLASSES"] if layout == "0.x" else meta["dataset_meta"]["classes"]) == 19


@pytest.mark.parametrize("numpy1", [False, True])
@pytest.mark.parametrize("layout", ["0.x", "1.x"])
def test_a_training_checkpoint_is_refused_weights_only(layout, numpy1, tmp_path):
    path = tmp_path / "model.pth"
    mmseg.save_checkpoint(small("setr-naive", "ade20k"), path, layout=layout, training_state=True, numpy1=numpy1)
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(path, weights_only=True)
    refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert f"numpy.{'core' if numpy1 else '_core'}.multiarray.scalar" in refused
    assert ("mmengine.logging.history_buffer.HistoryBuffer" in refused) == (layout == "1.x")


def test_unknown_configs_are_refused():
    with pytest.raises(ValueError, match="unknown variant 'setr'"):
        mmseg.build("setr")
    with pytest.raises(ValueError, match="no segmenter-mask for 'cityscapes'"):
        mmseg.build("segmenter-mask", dataset="cityscapes")
    with pytest.raises(ValueError, match="2 layers are too few"):
        mmseg.build("setr-mla", depth=2)
