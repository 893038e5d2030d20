"""Where mmsegmentation's settings come from: the file in all its forms, options, assumptions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import mmseg

from dovit.export.checkpoints import LoadedModel, ReadOptions, load_model
from dovit.runtime.errors import DovitError, UsageError

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("mmsegmentation")]
SIZE = (48, 64)


def build(variant: str = "setr-naive", image_size: tuple[int, int] = SIZE, embed_dim: int = 32, **model: Any) -> Any:
    config = mmseg.scaled_config(
        variant,
        image_size=image_size,
        classes=5,
        embed_dim=embed_dim,
        depth=4,
        heads=2,
        decoder_channels=16,
        out_indices=(0, 1, 2, 3) if variant.startswith("setr") else None,
    )
    for key, value in model.items():
        at = config.model
        *parents, last = key.split("__")
        for part in parents:
            at = at[part]
        at[last] = value
    return mmseg.build_config(config)


def save(path: Path, model: Any, meta: dict[str, Any]) -> Path:
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return path


def difference(loaded: LoadedModel, theirs: Any) -> float:
    ours = loaded.model
    image = np.random.default_rng(0).integers(0, 256, (*ours.config.image_size, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = ours.resize_logits(ours(torch.from_numpy(image)[None], [1.0] * len(ours.config.decisions)).logits)[0]
    expected = mmseg.encode_decode(theirs, image)
    return float((logits - expected).abs().max() / expected.abs().max())


def origins(loaded: LoadedModel) -> dict[str, str]:
    return {setting.name: setting.origin for setting in loaded.settings}


@pytest.mark.parametrize("form", ["cfg text", "config text", "cfg dict", "config dict"])
def test_every_form_of_a_configuration(form: str, tmp_path: Path) -> None:
    theirs = build(data_preprocessor__mean=[10.0, 20, 30], backbone__act_cfg={"type": "ReLU"})
    key, kind = form.split()
    said = theirs.cfg.to_dict() if kind == "dict" else theirs.cfg.pretty_text
    loaded = load_model(save(tmp_path / "model.pth", theirs, {key: said}))
    assert difference(loaded, theirs) < 1e-4
    assert set(origins(loaded).values()) == {"file"}


def old_style(theirs: Any, normalize: dict[str, Any], **augment: Any) -> dict[str, Any]:
    """The configuration as mmsegmentation 0.x has it: normalisation is a part of the test pipeline."""
    model = copy.deepcopy(theirs.cfg.model.to_dict())
    del model["data_preprocessor"]
    transforms = [
        {"type": "Resize", "keep_ratio": True},
        {"type": "RandomFlip"},
        {"type": "Normalize", **normalize},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    flips = {"type": "MultiScaleFlipAug", "img_scale": (2048, 512), "flip": False, "transforms": transforms, **augment}
    return {"model": model, "data": {"test": {"pipeline": [{"type": "LoadImageFromFile"}, flips]}}}


@pytest.mark.parametrize("to_rgb", [True, False])
def test_normalisation_of_old_pipelines(to_rgb: bool, tmp_path: Path) -> None:
    mean, std = [99.0, 111, 130], [33.0, 44, 55]
    theirs = build(data_preprocessor={"type": "SegDataPreProcessor", "mean": mean, "std": std, "bgr_to_rgb": to_rgb})
    said = old_style(theirs, {"mean": mean, "std": std, "to_rgb": to_rgb})
    meta = {"config": "".join(f"{key} = {value!r}\n" for key, value in said.items())}
    loaded = load_model(save(tmp_path / "model.pth", theirs, meta))
    assert difference(loaded, theirs) < 1e-4
    assert any("its test pipeline resizes images to 2048×512" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("augment", "name"),
    [({"flip": True}, "flip"), ({"img_ratios": [0.5, 1.0]}, "img_ratios"), ({"transforms": [{"type": "Pad"}]}, "type")],
)
def test_test_time_augmentation_is_refused(augment: dict[str, Any], name: str, tmp_path: Path) -> None:
    theirs = build()
    meta = {"config": old_style(theirs, {"mean": [1, 2, 3], "std": [1, 1, 1]}, **augment)}
    with pytest.raises(DovitError, match=rf"\.{name} = "):
        load_model(save(tmp_path / "model.pth", theirs, meta))


def pipeline(**resize: Any) -> list[dict[str, Any]]:
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", **resize},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]


def test_the_test_pipelines_resize(tmp_path: Path) -> None:
    theirs = build(test_cfg={"mode": "whole"})
    for resize, expected in [
        ({"scale": (96, 80)}, ((80, 96), False)),  # mmcv's is (width, height)
        ({"scale": (2048, 512), "keep_ratio": True}, (SIZE, True)),
        ({"scale_factor": 0.5}, (SIZE, False)),
    ]:
        meta = {"cfg": {**theirs.cfg.to_dict(), "test_dataloader": {"dataset": {"pipeline": pipeline(**resize)}}}}
        loaded = load_model(save(tmp_path / "model.pth", theirs, meta))
        config = loaded.model.config
        assert (config.image_size, config.keep_ratio) == expected and config.mode == "whole"
        assert difference(loaded, theirs) < 1e-4
        assert any("its test pipeline resizes images" in note for note in loaded.notes)
    for transform, name in [
        ({"type": "RandomFlip", "prob": 0.5}, "prob"),
        ({"type": "Resize", "interpolation": "area"}, "interpolation"),
        ({"type": "LoadImageFromFile", "color_type": "grayscale"}, "color_type"),
    ]:
        meta["cfg"] |= {"test_pipeline": [transform], "test_dataloader": None}
        with pytest.raises(DovitError, match=rf"test_pipeline\.0\.{name} = "):
            load_model(save(tmp_path / "model.pth", theirs, meta))
    meta["cfg"]["test_dataloader"] = {"dataset": {"pipeline": [*pipeline(scale=(64, 48)), {"type": "Solarize"}]}}
    path = save(tmp_path / "model.pth", theirs, meta)
    with pytest.raises(DovitError, match="'Solarize': dovit does not know this transform"):
        load_model(path)
    assert load_model(path, ReadOptions(changes=("test_pipeline=[]",))).model.config.image_size == SIZE


def test_upper_case_classes_of_dataset_meta(tmp_path: Path) -> None:
    theirs, names = build(), tuple("abcde")
    palette = [[k, 2 * k, 3 * k] for k in range(5)]
    meta = {"cfg": theirs.cfg.to_dict(), "dataset_meta": {"CLASSES": names, "PALETTE": palette}}
    config = load_model(save(tmp_path / "model.pth", theirs, meta)).model.config
    assert config.class_names == names and config.palette is not None and config.palette[2] == (2, 4, 6)


def test_a_preprocessor_at_the_top_is_the_models(tmp_path: Path) -> None:
    """mmengine's runner gives it to a model that has none."""
    theirs = build(data_preprocessor__std=[20.0, 30, 40])
    config = theirs.cfg.to_dict()
    config["data_preprocessor"] = config["model"].pop("data_preprocessor")
    assert difference(load_model(save(tmp_path / "model.pth", theirs, {"cfg": config})), theirs) < 1e-4


def test_a_file_without_a_configuration(tmp_path: Path) -> None:
    """What shapes do not determine is assumed as in mmsegmentation's configurations, or must be given."""
    theirs = build("segmenter-mask", (64, 64), embed_dim=128)
    path = save(tmp_path / "model.pth", theirs, {})
    loaded = load_model(path, ReadOptions(dense=True))
    assert difference(loaded, theirs) < 1e-4
    assert origins(loaded)["mean"] == origins(loaded)["backbone.num_heads"] == "assumed"

    theirs = build(image_size=(64, 64))
    path = save(tmp_path / "model.pth", theirs, {})
    with pytest.raises(UsageError, match=r"nothing says its backbone.num_heads: say --heads"):
        load_model(path)  # 32 channels
    with pytest.raises(UsageError, match=r"does not say after which layers.*--decision-layers"):
        load_model(path, ReadOptions(heads=2))
    loaded = load_model(path, ReadOptions(heads=2, decision_layers=(1, 2, 3)))
    assert difference(loaded, theirs) < 1e-4
    assert origins(loaded)["backbone.num_heads"] == origins(loaded)["decision layers"] == "option"

    theirs = build(image_size=(64, 64), decode_head__num_convs=2, decode_head__up_scale=3)
    path = save(tmp_path / "model.pth", theirs, {})
    with pytest.raises(UsageError, match=r"decode_head.up_scale: say --set model.decode_head.up_scale=…, or.*--config"):
        load_model(path, ReadOptions(heads=2, dense=True))
    options = ReadOptions(heads=2, dense=True, changes=("model.decode_head.up_scale=3",))
    assert difference(load_model(path, options), theirs) < 1e-4
    theirs.cfg.dump(tmp_path / "config.py")
    loaded = load_model(path, ReadOptions(config=tmp_path / "config.py"))
    assert difference(loaded, theirs) < 1e-4 and len(loaded.model.config.decisions) == 3


def test_options_go_before_the_file(tmp_path: Path) -> None:
    theirs = build()
    path = save(tmp_path / "model.pth", theirs, {"cfg": theirs.cfg.to_dict()})
    options = ReadOptions(
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        bgr=True,
        heads=4,
        norm_eps=0.01,
        stride=(7, 9),
        mode="whole",
        changes=("model.backbone.act_cfg.type=ReLU", "model.decode_head.norm_layer.eps=0.2"),
    )
    loaded = load_model(path, options)
    config = loaded.model.config
    assert (config.mean, config.std, config.slide_stride, config.mode) == ((1, 2, 3), (4, 5, 6), (7, 9), "whole")
    assert (config.backbone.heads, config.backbone.norm_eps, config.backbone.activation.kind) == (4, 0.01, "relu")
    same = build(
        data_preprocessor__mean=[3.0, 2, 1],
        data_preprocessor__std=[6.0, 5, 4],
        data_preprocessor__bgr_to_rgb=False,
        backbone__num_heads=4,
        backbone__norm_cfg={"type": "LN", "eps": 0.01},
        backbone__act_cfg={"type": "ReLU"},
        decode_head__norm_layer={"type": "LN", "eps": 0.2},
    )
    assert difference(loaded, same) < 1e-4
    reported = {name for name, origin in origins(loaded).items() if origin == "option"}
    assert reported == {
        "mean",
        "std",
        "BGR weights",
        "stride",
        "mode",
        "backbone.num_heads",
        "backbone.norm_cfg.eps",
        "backbone.act_cfg",
        "decode_head.norm_layer.eps",
    }
    for change, sentence in [
        ("modle.x=1", "begin with one of model"),
        ("model.backbone.num_head=3", r"model.backbone.num_head: no setting that dovit knows; .*num_heads"),
        ("model.decode_head.num_convs=3", "num_convs = 3: the weights have"),
        ("model.backbone.type=mmpretrain.VisionTransformer", "dovit reads mmsegmentation's VisionTransformer"),
        ("model.test_cfg.stride=(49,64)", "leave gaps"),
        ("model.neck.x=1", r"neck = \{'x': 1\}"),
    ]:
        with pytest.raises(DovitError, match=sentence):
            load_model(path, ReadOptions(changes=(change,)))


def test_a_damaged_configuration_is_one_sentence(tmp_path: Path) -> None:
    theirs = build()
    for text, sentence in [
        ("import os\n", "meta.cfg: cannot be read without running it"),
        ("model = dict(type='EncoderDecoder', backbone=3)", "is no dictionary"),
    ]:
        with pytest.raises(DovitError, match=sentence):
            load_model(save(tmp_path / "model.pth", theirs, {"cfg": text}))


@pytest.mark.parametrize("to_rgb", [True, False])
@pytest.mark.parametrize("conversion", ["bgr_to_rgb", "rgb_to_bgr"])
def test_normalize_before_the_preprocessor_reverses_channels(conversion: str, to_rgb: bool, tmp_path: Path) -> None:
    mean, std = [99.0, 111, 130], [33.0, 44, 55]
    # Normalize's order is that before the conversion, a data_preprocessor's alone that after it
    theirs = build(
        data_preprocessor={
            "type": "SegDataPreProcessor",
            "mean": mean[::-1],
            "std": std[::-1],
            "bgr_to_rgb": not to_rgb,
        }
    )
    said = theirs.cfg.to_dict()
    said["model"]["data_preprocessor"] = {"type": "SegDataPreProcessor", conversion: True}
    normalize = {"type": "Normalize", "mean": mean, "std": std, "to_rgb": to_rgb}
    said |= {"test_pipeline": [{"type": "LoadImageFromFile"}, normalize], "test_dataloader": None}
    loaded = load_model(save(tmp_path / "model.pth", theirs, {"cfg": said}))
    assert difference(loaded, theirs) < 1e-4


def test_an_empty_preprocessor_counts_as_none(tmp_path: Path) -> None:
    theirs = build(data_preprocessor=None)
    said = {**theirs.cfg.to_dict(), "data_preprocessor": {"type": "SegDataPreProcessor", "mean": [1], "std": [2]}}
    config = load_model(save(tmp_path / "model.pth", theirs, {"cfg": said})).model.config
    assert (config.mean, config.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("transforms", "name"),
    [
        ([{"type": "Normalize", "mean": [1, 2, 3], "std": [1, 1, 1]}] * 2, "test_pipeline.1.type"),
        ([{"type": "RandomFlip", "flip_ratio": 0.5}], "test_pipeline.0.flip_ratio"),
        ([{"type": "Resize", "scale": [(64, 48), (96, 64)]}], "test_pipeline.0.scale"),
        ([{"type": "Resize", "scale": (64, 48), "backend": "pillow"}], "test_pipeline.0.backend"),
        ([{"type": "Resize", "scale": (64, 48), "keep_ratio": "false"}], "test_pipeline.0.keep_ratio"),
        ([{"type": "Resize", "scale": (64, 48), "surprise": 1}], "test_pipeline.0.surprise"),
        ([{"type": "LoadImageFromFile", "imdecode_backend": "tifffile"}], "test_pipeline.0.imdecode_backend"),
    ],
)
def test_transforms_that_change_images_otherwise_are_refused(
    transforms: list[dict[str, Any]], name: str, tmp_path: Path
) -> None:
    theirs = build(data_preprocessor={"type": "SegDataPreProcessor"})
    said = {**theirs.cfg.to_dict(), "test_pipeline": transforms, "test_dataloader": None}
    with pytest.raises(DovitError, match=rf"{name} = "):
        load_model(save(tmp_path / "model.pth", theirs, {"cfg": said}))


def test_an_old_configurations_test_cfg_beside_the_model(tmp_path: Path) -> None:
    theirs = build()
    said = theirs.cfg.to_dict()
    said["test_cfg"] = {"mode": "slide", "crop_size": (32, 64), "stride": (20, 30)}
    del said["model"]["test_cfg"]
    config = load_model(save(tmp_path / "model.pth", theirs, {"config": said})).model.config
    assert (config.mode, config.image_size, config.slide_stride) == ("slide", (32, 64), (20, 30))


@pytest.mark.parametrize("key", ["backbone", "decode_head"])
def test_a_change_of_an_activation_that_nobody_named_keeps_its_type(key: str, tmp_path: Path) -> None:
    theirs = build()
    path = save(tmp_path / "model.pth", theirs, {"cfg": theirs.cfg.to_dict()})
    changed = load_model(path, ReadOptions(changes=(f"model.{key}.act_cfg.inplace=False",)))
    assert difference(changed, theirs) < 1e-4


@pytest.mark.parametrize("key", ["backbone", "decode_head"])
def test_an_activation_without_a_type_is_refused(key: str, tmp_path: Path) -> None:
    theirs = build()
    said = theirs.cfg.to_dict()
    said["model"][key]["act_cfg"] = {"inplace": True}
    with pytest.raises(DovitError, match=rf"model\.{key}\.act_cfg = .*has no type"):
        load_model(save(tmp_path / "model.pth", theirs, {"cfg": said}))


@pytest.mark.parametrize("text", ["false", "False", "0"])
def test_a_change_to_false_is_false(text: str, tmp_path: Path) -> None:
    theirs = build(backbone__with_cls_token=False)
    path = save(tmp_path / "model.pth", theirs, {"cfg": build().cfg.to_dict()})
    changed = load_model(path, ReadOptions(changes=(f"model.backbone.with_cls_token={text}",)))
    assert difference(changed, theirs) < 1e-4


@pytest.mark.parametrize("key", ["backbone.with_cls_token", "data_preprocessor.bgr_to_rgb"])
def test_a_string_is_not_a_boolean(key: str, tmp_path: Path) -> None:
    theirs = build()
    path = save(tmp_path / "model.pth", theirs, {"cfg": theirs.cfg.to_dict()})
    with pytest.raises(DovitError, match=rf"model\.{key} = 'off': neither True nor False"):
        load_model(path, ReadOptions(changes=(f"model.{key}=off",)))


@pytest.mark.parametrize("change", ["data_preprocessor.mean=[1,2,3]", "test_pipeline.1.keep_ratio=False"])
def test_a_change_that_has_no_effect_is_refused(change: str, tmp_path: Path) -> None:
    theirs = build()
    path = save(tmp_path / "model.pth", theirs, {"cfg": theirs.cfg.to_dict()})
    key = change.partition("=")[0]
    with pytest.raises(UsageError, match=rf"--set {key}: has no effect"):
        load_model(path, ReadOptions(changes=(change,)))


def test_windows_of_as_many_patches_as_another_img_size(tmp_path: Path) -> None:
    theirs = build(backbone__img_size=(64, 48))  # mmsegmentation takes the positions in their order in windows of 48×64
    path = save(tmp_path / "model.pth", theirs, {"cfg": theirs.cfg.to_dict()})
    with pytest.raises(
        UsageError, match=r"model\.backbone\.img_size=\(48, 64\)' does; --image-size 48x64 resizes them"
    ):
        load_model(path)
    assert difference(load_model(path, ReadOptions(changes=("model.backbone.img_size=(48, 64)",))), theirs) < 1e-4
    assert load_model(path, ReadOptions(image_size=(48, 64))).model.config.image_size == (48, 64)
