"""dovit-export and the commands after it, as typed: exit status, one line of output, and the files that are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models import random_images, randomised, small_config
from PIL import Image
from typed import call

from dovit.export import cli as export_cli
from dovit.export.checkpoints import save_model
from dovit.runtime.cli import inspect as inspect_cli
from dovit.runtime.cli import run as run_cli
from dovit.runtime.loading import load


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_model(randomised(small_config()), path)
    return path


def test_export_run_inspect(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines, image = tmp_path / "engines", tmp_path / "image.png"
    arguments = [
        "--ckpt",
        str(checkpoint),
        "--out",
        str(engines),
        "--threshold",
        "0.6,0.5",
        "--capacities",
        "8,16",
        "--json",
    ]
    assert call(export_cli, *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["manifest"]["thresholds"] == [0.6, 0.5] and report["manifest"]["capacities"] == [0, 8, 16, 24]
    assert len(report["verification"]) == 6 and all(one["ok"] for one in report["verification"])

    Image.fromarray(random_images(small_config())[0].numpy()).save(image)
    out = ["--out", str(tmp_path / "out"), "--json", "--overlay", "--keep-maps", "--confidence-maps"]
    assert call(run_cli, "--engine", engines, image, *out) == 0
    row = json.loads(capsys.readouterr().out)
    expected = load(engines)(np.asarray(Image.open(image)))
    assert row["kept"] == list(expected.kept) and row["size"] == [64, 96] and row["tokens"] == 24
    assert np.array_equal(np.asarray(Image.open(row["labels"])), expected.labels)
    assert len(list((tmp_path / "out").iterdir())) == 1 + 1 + 2 + 2

    assert call(inspect_cli, engines, "--json") == 0
    assert json.loads(capsys.readouterr().out)["architecture"].startswith("setr-naive")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--image-size", "65x96"], 2, "multiples of the patch size 16"),
        (["--image-size", "big"], 2, "HEIGHTxWIDTH"),
        (["--threshold", "1.01"], 2, "outside [0, 1]"),
        (["--threshold", "0.5,0.5,0.5"], 2, "3 thresholds for 2 decisions"),
        (["--threshold", "high"], 2, "numbers separated by commas"),
        (["--capacities", "25"], 2, "outside 0…24"),
        (["--classes", "19"], 2, "has 7 classes"),
        (["--palette", "cityscapes"], 2, "has 19 classes, the model has 7"),
        (["--arch", "setr-pup"], 2, "says that it is setr-naive"),
        (["--arch", "unet"], 2, "unet"),
        (["--precision", "int4"], 2, "int4"),
        (["--backend", "onnxruntime", "--precision", "fp16"], 2, "--precision is for plans"),
        (["--backend", "onnxruntime", "--plans-only"], 2, "--plans-only: --backend onnxruntime builds no plans"),
        (["--backend", "onnxruntime", "--no-cache"], 2, "--no-cache: --backend onnxruntime builds no plans"),
        (["--no-cache", "--cache", "plans"], 2, "--cache: --no-cache builds every plan"),
        (["--dense", "--decision-layers", "3,99"], 2, "--decision-layers: --dense exports the model without decisions"),
        (["--dense", "--threshold", "0.9"], 2, "--threshold: --dense exports"),
        (["--dense", "--capacities", "8"], 2, "--capacities: --dense exports"),
        (["--engine", "engines/"], 2, "either --ckpt"),
        (["--out", "model.onnx"], 2, "model.onnx: the name of a file; give a folder, such as model"),
        (["--ckpt", "missing.pth"], 1, "no such checkpoint"),
    ],
)
def test_bad_requests(
    arguments: list[str],
    status: int,
    sentence: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "engines"
    assert call(export_cli, "--ckpt", checkpoint, "--out", out, *arguments) == status
    errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(errors) == 1 and sentence in errors[0]
    assert not out.exists()


def test_plans_only_where_nothing_builds_plans(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dovit.engines.flavours.choose_flavour", lambda backend: None)
    assert call(export_cli, "--ckpt", checkpoint, "--out", tmp_path / "engines", "--plans-only") == 2
    assert "--plans-only: no TensorRT that could build plans is installed: leave it out" in capsys.readouterr().err
    assert not (tmp_path / "engines").exists()


def test_no_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(randomised(small_config(layers=())), tmp_path / "plain.pth")
    arguments = ["--ckpt", str(tmp_path / "plain.pth"), "--out", str(tmp_path / "engines")]
    assert call(export_cli, *arguments) == 1
    assert "no decision heads" in capsys.readouterr().err
    assert call(export_cli, *arguments, "--dense") == 0
    assert load(tmp_path / "engines").manifest.decisions == ()
