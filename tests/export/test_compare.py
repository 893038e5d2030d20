"""--compare: a bundle against logits that the real mmsegmentation saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import randomised, small_config
from oracle import mmseg
from PIL import Image

from dovit.benchmarks.gpu_models import dense_of
from dovit.export import cli as export_cli
from dovit.export.checkpoints import save_model

SIZES = {"image_size": (64, 64), "classes": 19, "embed_dim": 128, "depth": 4, "heads": 2, "decoder_channels": 32}


def typed(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["dovit-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        export_cli.main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.oracle
def test_a_model_of_mmsegmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right settings pass at the decoder's and the image's resolution; another mean fails and leaves the bundle.
    ONNX Runtime computes, whatever provider sessions are to have."""
    mmseg.require()
    monkeypatch.setenv("DOVIT_PROVIDER", "openvino")
    theirs = mmseg.build("setr-naive", dataset="ade20k", out_indices=(0, 1, 2, 3), **SIZES)
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    np.save(tmp_path / "decoder.npy", mmseg.decoder_logits(theirs, image)[None].numpy())  # [1, C, h, w]
    np.save(tmp_path / "image.npy", mmseg.encode_decode(theirs, image).numpy())  # [C, H, W]
    engines = tmp_path / "engines"
    common = ["--ckpt", tmp_path / "model.pth", "--out", engines, "--dense", "--backend", "onnxruntime", "--no-verify"]
    image_flag = ["--image", tmp_path / "image.png", "--mode", "whole"]
    for name in ("decoder.npy", "image.npy"):
        status, out, err = typed([*common, *image_flag, "--compare", tmp_path / name, "--json"], monkeypatch, capsys)
        assert status == 0, err
        found = json.loads(out)["comparison"]
        assert 0 < found["relative"] < 1e-4 and found["label_agreement"] > 0.999 and found["mode"] == "whole"
    before = content(engines)
    wrong = [*common, *image_flag, "--mean", "127.5,127.5,127.5", "--compare", tmp_path / "image.npy"]
    status, _, err = typed(wrong, monkeypatch, capsys)
    assert status == 1 and "no bundle was written" in err and "bound 0.001" in err and content(engines) == before
    assert typed([*wrong, "--compare-tolerance", "10"], monkeypatch, capsys)[0] == 0


@pytest.mark.oracle
def test_windows_of_mmsegmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mmseg.require()
    theirs = mmseg.build("segmenter-linear", **SIZES)
    mmseg.save_checkpoint(theirs, tmp_path / "model.pth")
    image = np.random.default_rng(1).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    common = [
        "--ckpt",
        tmp_path / "model.pth",
        "--out",
        tmp_path / "e",
        "--dense",
        "--backend",
        "onnxruntime",
        "--no-verify",
    ]
    common += [
        "--compare",
        tmp_path / "logits.npy",
        "--image",
        tmp_path / "image.png",
        "--mode",
        "slide",
        "--stride",
        "42",
    ]
    np.save(tmp_path / "logits.npy", mmseg.slide_inference(theirs, image, (64, 64), (42, 42)).numpy())
    status, out, err = typed(common, monkeypatch, capsys)
    assert status == 0 and "Against the given logits, 100×130, mode slide" in out, err
    assert "smaller than the window (64×64)" in out
    np.save(tmp_path / "logits.npy", mmseg.slide_inference(theirs, image, (64, 64), (32, 32)).numpy())
    status, _, err = typed(common, monkeypatch, capsys)
    assert status == 1 and "no bundle was written" in err


@pytest.fixture
def small(tmp_path: Path) -> list[Any]:
    save_model(randomised(small_config()), tmp_path / "model.safetensors")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "image.png")
    return [
        "--ckpt",
        tmp_path / "model.safetensors",
        "--out",
        tmp_path / "e",
        "--no-verify",
        "--backend",
        "onnxruntime",
    ]


def test_what_cannot_be_compared(
    small: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them on one bundle: --engine compares what is there."""
    assert typed(small, monkeypatch, capsys)[0] == 0
    engine = ["--engine", tmp_path / "e", "--backend", "onnxruntime"]
    at = ["--compare", tmp_path / "logits.npy", "--image", tmp_path / "image.png"]
    cases: list[tuple[Any, str]] = [
        (np.zeros((5, 4, 6), np.float32), "logits of 5 classes, and the bundle has 7"),
        (
            np.zeros((7, 5, 6), np.float32),
            "logits of 5×6 for an image of 64×96; expected 16×24 (the decoder's) or 64×96",
        ),
        (np.zeros((2, 7, 4, 6), np.float32), "expected logits [C, h, w] or [1, C, h, w]"),
        (np.zeros((64, 96), np.uint8), "holds uint8 [64, 96]"),
        (np.full((7, 16, 24), np.nan, np.float32), "not finite"),
        (np.ones((7, 16, 24), np.float32), "no bundle was written"),
        (b"PNG", "not an array that numpy saved"),
        (None, "no such logits"),
    ]
    for made, words in cases:
        (tmp_path / "logits.npy").unlink(missing_ok=True)
        if isinstance(made, bytes):
            (tmp_path / "logits.npy").write_bytes(made)
        elif made is not None:
            np.save(tmp_path / "logits.npy", made)
        status, _, err = typed([*engine, *at], monkeypatch, capsys)
        assert status == 1 and words in " ".join(err.split()), err
    from dovit.runtime.loading import load

    made = load(tmp_path / "e")(np.zeros((64, 96, 3), np.uint8), threshold=1.0, return_logits=True).logits
    assert made is not None
    np.save(tmp_path / "logits.npy", torch.from_numpy(made).half().numpy())
    status, out, err = typed([*engine, *at, "--json"], monkeypatch, capsys)
    assert status == 0 and json.loads(out)["comparison"]["relative"] < 1e-3, err


def test_a_refined_model_is_not_the_dense_one(
    small: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = randomised(small_config(head="neighbours"))
    save_model(model, tmp_path / "model.safetensors")
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    with torch.no_grad():
        np.save(tmp_path / "dense.npy", dense_of(model)(image).logits.numpy())
    at = ["--image", tmp_path / "image.png", "--compare", tmp_path / "dense.npy"]
    status, _, err = typed([*small, *at], monkeypatch, capsys)
    assert status == 1 and "compare the model it was adapted from" in err, err


def test_an_incomplete_request_is_a_usage_error(
    small: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed([*small, "--compare", tmp_path / "x.npy"], monkeypatch, capsys)[0] == 2
    assert typed([*small, "--image", tmp_path / "image.png"], monkeypatch, capsys)[0] == 2
    assert typed([*small, "--compare-tolerance", "1"], monkeypatch, capsys)[0] == 2
