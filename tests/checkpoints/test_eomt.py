"""EoMT's checkpoints against the real transformers, and tue-mps/eomt's key layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from installed import require

require("transformers")
from oracle.eomt import KINDS, change, official, save, scores, small
from oracle.huggingface import difference, images

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.runtime.errors import DovitError, UsageError

pytestmark = pytest.mark.oracle
DENSE = ReadOptions(dense=True)
TRAINING = ReadOptions(untrained=True)


def check(theirs: Any, path: Path, options: ReadOptions = DENSE, size: tuple[int, int] | None = None) -> None:
    """The model read from `path` has the semantic scores of `theirs`."""
    model = load_model(path, options).model
    image = images(size or model.config.image_size)
    with torch.no_grad():
        made = model(image, thresholds=[1.0] * len(model.heads)).logits
    expected = scores(theirs, image)
    assert expected.std() > 0.01
    assert difference(made.numpy(), expected.numpy()) < 1e-4
    assert (made.argmax(1) == expected.argmax(1)).float().mean() >= 0.999


@pytest.mark.parametrize("side", [16, 48, 80, 112])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers(kind: str, side: int, tmp_path: Path) -> None:
    theirs = small(kind, image_size=side)
    check(theirs, save(theirs, tmp_path))
    check(theirs, tmp_path, TRAINING)


@pytest.mark.parametrize("kind", KINDS)
def test_sides_that_differ(kind: str, tmp_path: Path) -> None:
    """transformers has square images alone; its grid and positions are set to those of another."""
    theirs, size = small(kind), (48, 112)
    save(theirs, tmp_path)
    options = ReadOptions(dense=True, image_size=size)
    theirs.grid_size = (3, 7)
    if kind == "eomt":
        loaded = load_model(tmp_path, options)
        assert "bicubic, antialiased" in str([setting.value for setting in loaded.settings])
        theirs.embeddings.position_embeddings.weight = torch.nn.Parameter(loaded.model.backbone.pos_embed)
        theirs.embeddings.position_ids = torch.arange(21)[None]
    check(theirs, tmp_path, options, size)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("eomt", {"use_swiglu_ffn": True}),
        ("eomt", {"patch_size": 8, "image_size": 40, "num_upscale_blocks": 1}),
        ("eomt", {"patch_size": 14, "image_size": 70}),
        ("eomt_dinov3", {"use_gated_mlp": True, "hidden_act": "silu"}),
        ("eomt_dinov3", {"rope_parameters": {"rope_type": "default", "rope_theta": 30.0}}),
        ("eomt_dinov3", {"key_bias": True, "query_bias": False}),
        ("eomt_dinov3", {"mlp_bias": False, "proj_bias": False, "value_bias": False}),
        *(
            (kind, changes)
            for kind in KINDS
            for changes in (
                {"hidden_act": "gelu_new"},
                {"hidden_act": "relu", "layer_norm_eps": 1e-2},
                {"num_blocks": 6, "num_upscale_blocks": 3},
                {"num_blocks": 1, "num_queries": 1, "num_upscale_blocks": 0},
                {"num_register_tokens": 0, "num_attention_heads": 4},
            )
        ),
    ],
    ids=str,
)
def test_every_setting_is_honoured(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = small(kind, **changes)
    check(theirs, save(theirs, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_written_out_in_full(kind: str, tmp_path: Path) -> None:
    """Every setting that transformers has is known: one that a newer version adds is refused, which shows here first."""
    theirs = small(kind)
    save(theirs, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    check(theirs, tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("eomt", {"num_blocks": 7}, "queries cannot join before the last 7 of 6 layers"),
        ("eomt", {"num_queries": 8}, "num_queries = 8: the weights have 9"),
        ("eomt", {"num_upscale_blocks": 1}, "num_upscale_blocks = 1: the weights have 2"),
        ("eomt", {"use_swiglu_ffn": True}, "use_swiglu_ffn = True: the weights say otherwise"),
        ("eomt", {"mlp_ratio": 4}, "mlp_ratio = 4: the weights have 128 channels"),
        ("eomt", {"image_size": 96}, "96×96, which is 6×6 patches of 16, and the checkpoint has 25"),
        ("eomt", {"masked_attention": True}, "masked_attention = True: a setting that dovit does not know"),
        ("eomt_dinov3", {"key_bias": True}, "key_bias = True: the weights have False"),
        ("eomt_dinov3", {"rope_parameters": {"rope_type": "linear"}}, "rotary positions only"),
        ("eomt_dinov3", {"rope_parameters": {"rope_theta": -1.0}}, "not a number above 1"),
        ("eomt_dinov3", {"rope_parameters": {"factor": 2.0}}, "rope_parameters.factor = 2.0: a setting that dovit"),
        ("eomt_dinov3", {"intermediate_size": 128}, "intermediate_size = 128: the weights have 96"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused(kind: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(small(kind), tmp_path)
    change(tmp_path, "config.json", **changes)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(DovitError) as error:
        load_model(tmp_path, DENSE)
    assert words in str(error.value), str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_that_still_limit_attention_are_refused(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    theirs.attn_mask_probs[1] = 0.25
    save(theirs, tmp_path)
    with pytest.raises(DovitError, match=r"attn_mask_probs is \[0.0, 0.25\]"):
        load_model(tmp_path, DENSE)


def test_the_image_processor_says_how_images_are_run(tmp_path: Path) -> None:
    theirs = small("eomt")
    assert load_model(save(theirs, tmp_path), DENSE).model.config.mode == "whole"
    split = load_model(save(theirs, tmp_path, do_split_image=True), DENSE)
    assert (split.model.config.mode, split.model.config.slide_stride) == ("slide", (80, 80))
    assert any("do_split_image" in note for note in split.notes)
    padded = load_model(save(theirs, tmp_path, do_pad=True), DENSE)
    assert padded.model.config.keep_ratio and any("semantic labels" in note for note in padded.notes)


def test_classes_and_decision_layers(tmp_path: Path) -> None:
    theirs = small("eomt", num_hidden_layers=8, id2label={k: name for k, name in enumerate("abcde")})
    save(theirs, tmp_path)
    model = load_model(tmp_path, TRAINING).model
    assert model.config.class_names == tuple("abcde")
    assert [head.layer for head in model.config.decisions] == [2, 4, 6]
    words = "--decision-layers 3,7: give ascending layers from 1 to 6; the model has 8, and an EoMT's queries join after layer 6"
    with pytest.raises(UsageError, match=words):
        load_model(tmp_path, ReadOptions(untrained=True, decision_layers=(3, 7)))
    with pytest.raises(DovitError, match="no decision heads"):
        load_model(tmp_path)
    with pytest.raises(UsageError, match="whose decoder is its own"):
        load_model(tmp_path, ReadOptions(dense=True, arch="setr-pup"))
    with pytest.raises(UsageError, match="heads of their own have backbones of DINOv2"):
        load_model(tmp_path, ReadOptions(dense=True, changes=("head.layers=(1,2,3,4)",)))
    with pytest.raises(UsageError, match="--classes 4: the checkpoint has 5"):
        load_model(tmp_path, ReadOptions(dense=True, classes=4))


@pytest.mark.parametrize("kind", KINDS)
def test_dovits_own_file_is_the_same_model(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    save_model(load_model(save(theirs, tmp_path), TRAINING).model, tmp_path / "own.safetensors")
    check(theirs, tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("kind", "changes"), [("eomt", {}), ("eomt", {"use_swiglu_ffn": True}), ("eomt_dinov3", {"layer_norm_eps": 1e-5})]
)
def test_official_files_are_the_same_model(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = small(kind, **changes)
    state = official(theirs, save(theirs, tmp_path / "folder"))
    torch.save({"state_dict": state, "epoch": 30}, tmp_path / "eomt.ckpt")
    torch.save(state, tmp_path / "pytorch_model.bin")
    options = ReadOptions(dense=True, heads=2, image_size=(80, 80))
    for name in ("eomt.ckpt", "pytorch_model.bin"):
        check(theirs, tmp_path / name, options)
        assert load_model(tmp_path / name, options).model.config.mode == "slide"
    if kind == "eomt_dinov3":
        with pytest.raises(UsageError, match="--image-size"):
            load_model(tmp_path / "eomt.ckpt", DENSE)
    with pytest.raises(UsageError, match="no configuration"):
        load_model(tmp_path / "eomt.ckpt", ReadOptions(dense=True, changes=("num_blocks=3",)))
    torch.save(state | {"network.extra": torch.ones(2)}, tmp_path / "odd.pth")
    with pytest.raises(DovitError, match=r"1 unknown keys: network\.extra"):
        load_model(tmp_path / "odd.pth", options)


@pytest.mark.parametrize("buffers", [True, False])
def test_differences_to_gated_weights_are_refused(buffers: bool, tmp_path: Path) -> None:
    """tue-mps/eomt's delta weights: in the encoder, and its mean and std, what training has added."""
    theirs = small("eomt_dinov3")
    state = official(theirs, save(theirs, tmp_path))
    encoder = {key: 0.001 * value for key, value in state.items() if key.startswith("network.encoder.")}
    encoder |= {key: torch.zeros(1, 3, 1, 1) for key in encoder if "pixel" in key}
    state |= encoder
    if not buffers:
        state = {key: value for key, value in state.items() if "pixel" not in key}
    torch.save(state, tmp_path / "delta.bin")
    with pytest.raises(DovitError, match="holds differences to the weights of DINOv3"):
        load_model(tmp_path / "delta.bin", ReadOptions(dense=True, image_size=(80, 80)))
