"""Against real mmsegmentation models: the same logits from the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import mmseg

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.usefixtures("mmsegmentation"),
]
VARIANTS = ["setr-naive", "setr-pup", "setr-mla", "segmenter-mask", "segmenter-linear"]
SIZE = (64, 96)


def build(variant: str, **changes: object) -> object:
    sizes = {"image_size": SIZE, "classes": 19, "embed_dim": 128, "depth": 8, "heads": 2}
    if variant.startswith("setr"):
        sizes |= {"out_indices": (1, 3, 5, 7)}
    return mmseg.build(variant, **{**sizes, **changes})


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def logits(model: DoViT, image: np.ndarray) -> torch.Tensor:
    """At the image's size, nothing stopped."""
    with torch.inference_mode():
        output = model(torch.from_numpy(image)[None], [1.0] * len(model.config.decisions))
        return model.resize_logits(output.logits)[0]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("layout", ["1.x", "0.x"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_mmsegmentation(variant: str, layout: str, tmp_path: Path) -> None:
    theirs = build(variant, patch_bias=layout == "0.x")
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth", layout=layout)
    has_heads = variant in ("setr-naive", "setr-pup")
    loaded = load_model(tmp_path / "model.pth", ReadOptions(image_size=SIZE, dense=not has_heads))
    assert len(loaded.model.config.decisions) == (3 if has_heads else 0)
    image = picture()
    assert relative(logits(loaded.model, image), mmseg.encode_decode(theirs, image)) < 1e-4


@pytest.mark.parametrize("variant", ["setr-naive", "segmenter-mask"])
def test_positions_are_resized_as_mmsegmentation_does(variant: str, tmp_path: Path) -> None:
    theirs = build(variant, image_size=(64, 64))
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    size = (96, 80)
    ours = load_model(tmp_path / "model.pth", ReadOptions(image_size=size, dense=True)).model
    assert relative(logits(ours, picture(size)), mmseg.encode_decode(theirs, picture(size))) < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_slide_equals_mmsegmentation(variant: str, tmp_path: Path) -> None:
    theirs = build(variant, image_size=(64, 64))
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    ours = load_model(tmp_path / "model.pth", ReadOptions(dense=True)).model

    def core(window: np.ndarray) -> Result:
        with torch.inference_mode():
            found = ours(torch.from_numpy(window)[None]).logits[0].numpy()
        none = np.zeros((0, 4, 4))
        return Result(np.zeros((64, 64), np.uint8), (), 16, none.astype(bool), none.astype(np.float32), found)

    image = picture((113, 150), seed=1)
    result = segment_slide(image, (64, 64), (43, 43), core, keep_logits=True)
    reference = mmseg.slide_inference(theirs, image, crop_size=(64, 64), stride=(43, 43))
    assert result.logits is not None
    assert relative(torch.from_numpy(result.logits), reference) < 1e-4
    assert (result.labels == reference.argmax(0).numpy()).mean() > 0.999


def test_setr_auxiliary_head_decides_with_its_own_weights(tmp_path: Path) -> None:
    """With one convolution of kernel 1 the head without upsampling equals the head's own map at aligned positions only;
    so compare the part before the first upsampling: mmsegmentation's modules applied to its own features."""
    theirs = build("setr-naive", dataset="cityscapes")
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    ours = load_model(tmp_path / "model.pth", ReadOptions(image_size=SIZE)).model
    with torch.inference_mode():
        features = theirs.extract_feat(mmseg.preprocess(theirs, picture()))
        for number, head in enumerate(theirs.auxiliary_head):
            x = features[number]
            normed = head.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
            for stage in head.up_convs:
                normed = stage[0](normed)
            expected = head.conv_seg(normed)
            assert relative(ours.heads[number](x), expected) < 1e-5
            assert ours.config.decisions[number].layer == (2, 4, 6)[number]


def test_training_files_are_read_and_not_run(tmp_path: Path) -> None:
    theirs = build("setr-pup")
    for layout in ("0.x", "1.x"):
        mmseg.save_checkpoint(theirs, tmp_path / "iter.pth", layout=layout, training_state=True)
        loaded = load_model(tmp_path / "iter.pth", ReadOptions(image_size=SIZE, decision_layers=(2, 4, 6)))
        assert relative(logits(loaded.model, picture()), mmseg.encode_decode(theirs, picture())) < 1e-4


def test_a_plain_segmenter_asks_for_heads_or_dense(tmp_path: Path) -> None:
    mmseg.save_checkpoint(build("segmenter-mask"), tmp_path / "model.pth")
    with pytest.raises(DovitError, match=r"no decision heads.*dovit-adapt.*dovit-train.*--dense"):
        load_model(tmp_path / "model.pth", ReadOptions(image_size=SIZE))


def test_wrong_requests_are_usage_errors(tmp_path: Path) -> None:
    mmseg.save_checkpoint(build("setr-naive", image_size=(64, 64)), tmp_path / "model.pth")
    for options, sentence in [
        (ReadOptions(image_size=(65, 64)), "multiples of the patch size 16"),
        (ReadOptions(classes=20), "has 19 classes"),
        (ReadOptions(arch="segmenter-mask"), "are those of setr-naive"),
        (ReadOptions(decision_layers=(2, 4)), "has 3 heads"),
        (ReadOptions(decision_layers=(4, 2, 6)), "--decision-layers 4,2,6: give ascending layers from 1 to"),
        (ReadOptions(thresholds=(0.9, 0.8)), "2 thresholds for 3 decisions"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            load_model(tmp_path / "model.pth", options)


def test_every_wrong_key_is_in_one_message(tmp_path: Path) -> None:
    theirs = build("setr-naive", image_size=(64, 64))
    state = dict(theirs.state_dict())
    del state["backbone.layers.3.ln1.bias"], state["decode_head.norm.weight"]
    state["backbone.layers.2.ln2.weight"] = torch.zeros(7)
    state["backbone.surprise"] = torch.zeros(1)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "model.pth")
    with pytest.raises(DovitError) as error:
        load_model(tmp_path / "model.pth", ReadOptions(decision_layers=(2, 4, 6)))
    for part in (
        "backbone.surprise",
        "layers.3.norm1.bias",
        "decoder.norm.weight",
        "layers.2.norm2.weight is [7], expected",
    ):
        assert part in str(error.value)


@pytest.mark.slow
def test_vit_large_equals_mmsegmentation(tmp_path: Path) -> None:
    size = (256, 256)
    theirs = mmseg.build("setr-pup", dataset="ade20k", image_size=size, classes=150)
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    ours = load_model(tmp_path / "model.pth").model
    assert [head.layer for head in ours.config.decisions] == [10, 15, 20]
    assert relative(logits(ours, picture(size)), mmseg.encode_decode(theirs, picture(size))) < 1e-4
