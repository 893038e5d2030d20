"""One setting of real mmsegmentation models changed at a time: the same logits, or a refusal that names the setting."""

from __future__ import annotations

import copy
import functools
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import mmseg
from oracle.mmseg_settings import CASES, GONE, VARIANTS, Try, every

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("mmsegmentation")]
SIZE = (48, 64)


@functools.cache
def scaled(variant: str) -> Any:
    sizes: dict[str, Any] = {
        "image_size": SIZE,
        "classes": 5,
        "embed_dim": 32,
        "depth": 4,
        "heads": 2,
        "decoder_channels": 16,
    }
    if variant.startswith("setr"):
        sizes["out_indices"] = (0, 1, 2, 3)
    config = mmseg.scaled_config(variant, **sizes)
    config.model.pretrained = None
    return config


def edited(variant: str, edits: dict[str, Any]) -> Any:
    config = copy.deepcopy(scaled(variant))
    for key, value in edits.items():
        *parents, last = key.split(".")
        at = config.model
        for part in parents:
            at = at[int(part)] if part.isdigit() else at[part]
        if value is GONE:
            at.pop(last, None)
        else:
            at[last] = value
    return config


@functools.cache
def untouched(variant: str) -> Any:
    return mmseg.build_config(scaled(variant))


def save(path: Path, model: Any, config: Any) -> Path:
    """As mmengine writes it, but without yapf, which takes longer than everything else."""
    keys = ("model", "test_pipeline", "test_dataloader", "crop_size", "norm_cfg")
    text = "".join(f"{key} = {value!r}\n" for key, value in config.to_dict().items() if key in keys)
    torch.save({"state_dict": model.state_dict(), "meta": {"cfg": text}}, path)
    return path


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def whole(model: DoViT, image: np.ndarray) -> torch.Tensor:
    output = model(torch.from_numpy(image)[None], [1.0] * len(model.config.decisions))
    return model.resize_logits(output.logits)[0]


def slid(model: DoViT, image: np.ndarray) -> torch.Tensor:
    config = model.config

    def core(window: np.ndarray) -> Result:
        with torch.inference_mode():
            found = model(torch.from_numpy(window)[None], [1.0] * len(config.decisions)).logits[0].numpy()
        none = np.zeros((0, *config.grid))
        return Result(np.zeros(config.image_size, np.uint8), (), 16, none.astype(bool), none.astype(np.float32), found)

    assert config.slide_stride is not None
    logits = segment_slide(image, config.image_size, config.slide_stride, core, keep_logits=True).logits
    assert logits is not None
    return torch.from_numpy(logits)


def check(path: Path, case: Try, variant: str) -> None:
    config = edited(variant, case.edits)
    if case.refused is not None:
        save(path, untouched(variant), config)
        with pytest.raises(DovitError, match=case.refused.replace(".", r"\.")) as error:
            load_model(path, ReadOptions(dense=True))
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
        return
    theirs = mmseg.build_config(config)
    save(path, theirs, config)
    plain = not any(key.startswith("auxiliary_head") for key in theirs.state_dict()) or variant == "setr-mla"
    ours = load_model(path, ReadOptions(plain=plain, **case.options)).model
    theirs.data_preprocessor.test_cfg = None  # the padding that a bundle accepts adds nothing
    image = picture(ours.config.image_size)
    assert relative(whole(ours, image), mmseg.encode_decode(theirs, image)) < 1e-4


@pytest.mark.parametrize(("case", "variant"), [pytest.param(c, v, id=name) for name, c, v in every()])
def test_a_setting_is_honoured_or_refused(case: Try, variant: str, tmp_path: Path) -> None:
    check(tmp_path / "model.pth", case, variant)


def test_every_setting_of_mmsegmentation_is_known() -> None:
    from mmseg import registry

    mmseg.build_config(scaled("setr-naive"))  # registers everything
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    for name, known in CASES.items():
        cls = BaseDecodeHead if name == "BaseDecodeHead" else registry.MODELS.get(name)
        parameters = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        assert parameters == set(known), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_setting_that_nobody_knows_is_refused(variant: str, tmp_path: Path) -> None:
    sections = ["", "backbone.", "decode_head.", "data_preprocessor.", "test_cfg.", "backbone.norm_cfg."]
    sections += {"setr-mla": ["neck.", "neck.norm_cfg."]}.get(variant, [])
    sections += ["auxiliary_head.1."] if variant in ("setr-naive", "setr-pup") else []
    for section in sections:
        config = edited(variant, {f"{section}surprise": 3})
        path = save(tmp_path / "model.pth", untouched(variant), config)
        with pytest.raises(DovitError, match=rf"model\.{section}surprise = 3: a setting that dovit does not know"):
            load_model(path, ReadOptions(plain=True))
        removed = f"model.{section}surprise=None"
        load_model(path, ReadOptions(plain=True, changes=(removed,)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_slide_is_mmsegmentations(variant: str, tmp_path: Path) -> None:
    config = edited(variant, {"test_cfg": {"mode": "slide", "crop_size": (48, 32), "stride": (31, 17)}})
    theirs = mmseg.build_config(config)
    ours = load_model(save(tmp_path / "model.pth", theirs, config), ReadOptions(dense=True)).model
    assert (ours.config.image_size, ours.config.slide_stride, ours.config.mode) == ((48, 32), (31, 17), "slide")
    image = picture((80, 75), seed=1)
    assert relative(slid(ours, image), mmseg.slide_inference(theirs, image)) < 1e-4


@torch.inference_mode()
def decision_logits(model: DoViT, image: np.ndarray) -> list[torch.Tensor]:
    """Each decision head's logits [C, h, w], nothing stopped."""
    found: list[torch.Tensor] = []

    def policy(number: int, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(model.head_logits(number, state)[0])
        every_token = torch.arange(model.config.tokens)[None]
        return torch.zeros(every_token.shape), every_token

    model.follow(torch.from_numpy(image)[None], policy)
    return found


FCN = {"type": "FCNHead", "in_channels": 32, "channels": 8, "num_classes": 5, "norm_cfg": {"type": "BN", "eps": 0.3}}
UP = {"type": "SETRUPHead", "in_channels": 32, "channels": 8, "num_classes": 5, "norm_cfg": {"type": "BN"}}
HEADS = {
    "the third alone": [{**UP, "in_index": 2}],
    "one that is no list": {**UP, "in_index": 1},
    "reversed": [{**UP, "in_index": k, "kernel_size": 1} for k in (2, 1, 0)],
    "counted from the end": [{**UP, "in_index": k} for k in (-4, -2)],
    "one on the last layer": [{**UP, "in_index": k} for k in (0, 3)],
    "FCN": [{**FCN, "in_index": 0}, {**FCN, "in_index": 1, "num_convs": 1, "concat_input": False, "kernel_size": 1}],
    "dilated FCN": [{**FCN, "in_index": 1, "dilation": 2, "num_convs": 2}],
    "epsilons and activations": [
        {
            **UP,
            "in_index": 0,
            "norm_layer": {"type": "LN", "eps": 0.2},
            "act_cfg": {"type": "LeakyReLU", "negative_slope": 0.4},
        },
        {**FCN, "in_index": 2, "act_cfg": {"type": "GELU"}, "norm_cfg": None},
    ],
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("variant", ["setr-naive", "segmenter-linear"])
def test_decisions_sit_where_the_auxiliary_heads_do(variant: str, name: str, tmp_path: Path) -> None:
    heads = copy.deepcopy(HEADS[name])
    config = edited(variant, {"auxiliary_head": heads, "backbone.out_indices": (0, 1, 2, 3), "decode_head.in_index": 3})
    theirs = mmseg.build_config(config)
    ours = load_model(save(tmp_path / "model.pth", theirs, config)).model
    image = picture(SIZE)
    features = theirs.backbone(mmseg.preprocess(theirs, image))
    modules = theirs.auxiliary_head if isinstance(heads, list) else [theirs.auxiliary_head]
    by_layer = {}
    for settings, module in zip(heads if isinstance(heads, list) else [heads], modules, strict=True):
        for stage in getattr(module, "up_convs", ()):
            stage[1] = torch.nn.Identity()  # a decision is made per token: no upsampling
        by_layer[settings["in_index"] % 4 + 1] = module(features)[0]
    by_layer.pop(4, None)
    assert [head.layer for head in ours.config.decisions] == sorted(by_layer)
    for logits, layer in zip(decision_logits(ours, image), sorted(by_layer), strict=True):
        assert relative(logits, by_layer[layer]) < 1e-4, layer


def test_two_heads_after_one_layer_are_refused(tmp_path: Path) -> None:
    config = edited("setr-naive", {"auxiliary_head": [{**UP, "in_index": k} for k in (1, 1)]})
    path = save(tmp_path / "model.pth", mmseg.build_config(config), config)
    with pytest.raises(DovitError, match=r"sit after the layers 2, 2.*--decision-layers.*--dense"):
        load_model(path)
    assert [head.layer for head in load_model(path, ReadOptions(decision_layers=(1, 3))).model.config.decisions] == [
        1,
        3,
    ]
