"""dovit-export --precision int8: the images that it takes, what it says, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quantized import export

from dovit.engines.scenes import street_scenes
from dovit.export.quantization import measure
from dovit.export.quantization.images import at_model_size
from dovit.export.quantization.request import QuantizationRequest
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.cli import inspect
from dovit.runtime.cli.options import BackendChoice
from dovit.runtime.errors import DovitError, UsageError


def test_images_as_the_model_sees_them(trained: Bundle) -> None:
    """Labels go where their pixels go: stretched, padded, or the window in the middle."""
    height, width = trained.manifest.image_size
    image = np.zeros((2 * height, 2 * width, 3), np.uint8)
    image[height:] = 200
    cases: list[tuple[dict[str, object], np.ndarray]] = [
        ({}, image),
        ({"keep_ratio": True}, image[:, :width]),
        ({"mode": "slide"}, image),
    ]
    for update, given in cases:
        manifest = Manifest.model_validate(trained.manifest.model_dump() | update)
        pixels, labels = (at_model_size(manifest, given, labels=flag) for flag in (False, True))
        assert pixels.shape == labels.shape == (height, width, 3)
        inside = labels[..., 0] != 255
        assert inside.all() == ("keep_ratio" not in update)
        # resampling mixes the pixels next to the edge
        assert np.mean((pixels[..., 0] > 100)[inside] == (labels[..., 0] == 200)[inside]) > 0.98
        assert (labels[height // 2 + 1 :, 0] == 200).all() and (labels[: height // 2 - 1, 0] == 0).all()


@pytest.fixture
def photos(tmp_path: Path, trained: Bundle) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, scene in enumerate(street_scenes(trained.manifest, 3)):
        Image.fromarray(scene.image).save(folder / f"{number}.png")
    return folder


def test_the_command(
    trained: Bundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a float32 bundle, which stays; inspect shows the same figures."""
    monkeypatch.setattr(measure, "MIN_LABELS_EQUAL", 0.9)
    out = tmp_path / "out"
    export(engine=trained.root, out=out, precision="int8", calibrate=[str(photos)], backend=BackendChoice.onnxruntime)
    told = capsys.readouterr().out
    assert "calibrated on 3 images, measured on 3 (the same images)" in told and "float32 bundle quantized" in told
    assert open_bundle(trained.root).manifest.precision == "fp32"
    inspect.command(out)
    told = capsys.readouterr().out
    assert (
        "48 products in int8, all else fp32; 0 products were left out" in told and "int8 compared with float32" in told
    )
    inspect.command(out, as_json=True)
    assert json.loads(capsys.readouterr().out)["quantization"]["products"]["stem"] == 12
    with pytest.raises(UsageError, match="its products are int8 already"):
        export(engine=out, out=tmp_path / "again", precision="int8", calibrate=[str(photos)])
    assert not (tmp_path / "again").exists()


def test_other_labels_are_another_request(tmp_path: Path) -> None:
    """An export is repeated where what it measured with has changed, under the same name too."""
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder / "val").mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(
                tmp_path / "data" / folder / "val" / f"{number}.png"
            )
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    seen = []

    def digest(data: str | None = str(tmp_path / "data")) -> str:
        seen.append(QuantizationRequest("int8", (photo,), data).digest())
        return seen[-1]

    assert digest() == digest()
    Image.fromarray(np.full((8, 8), 4, np.uint8)).save(tmp_path / "data" / "labels" / "val" / "1.png")
    digest()
    Image.fromarray(np.full((8, 8), 5, np.uint8)).save(tmp_path / "data" / "images" / "val" / "1.png")
    digest()
    (tmp_path / "data" / "labels" / "val" / "2.png").unlink()
    (tmp_path / "data" / "images" / "val" / "2.png").unlink()
    digest()
    digest(None)
    digest("streets:2")
    assert len(set(seen)) == len(seen) - 1
    with pytest.raises(DovitError, match="nope: no such folder"):
        digest("nope")


REFUSED: list[tuple[Callable[[Path], dict[str, object]], str]] = [
    (lambda photos: {"precision": "int8"}, "--precision int8 needs --calibrate: some dozens of images"),
    (lambda photos: {"calibrate": [str(photos)]}, "--calibrate is for --precision int8 or fp8"),
    (lambda photos: {"data": "streets:2", "precision": "bf16"}, "--data is for --precision int8 or fp8"),
    (lambda photos: {"precision": "int8", "calibrate": [str(photos / "*.jpg")]}, "no file matches"),
    (lambda photos: {"precision": "int8", "calibrate": [str(photos)]}, "give --out, another folder"),
    (lambda photos: {"precision": "int8", "calibrate": [str(photos)], "same": True}, "its float32 files would be lost"),
    (lambda photos: {"precision": "int8", "calibrate": ["nosuch.png"], "out": photos / "o"}, "nosuch.png"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_what_is_refused(
    trained: Bundle, photos: Path, options: Callable[[Path], dict[str, object]], sentence: str
) -> None:
    given = options(photos)
    if given.pop("same", False):
        given["out"] = trained.root
    with pytest.raises(DovitError, match=sentence):
        export(engine=trained.root, **given)
    assert open_bundle(trained.root).manifest == trained.manifest
