"""benchmarks/quantizers.py on a small model: what quantizers made runs in int8, and missing packages are named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from installed import require

from dovit.benchmarks import quantizers
from dovit.benchmarks.quantizers import command, compare
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.errors import UsageError

require("openvino")


def test_rows_of_what_is_installed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stem's two layers have eight products, all of which OpenVINO executes in int8, and attention's too where ONNX Runtime's
    quantizer quantized them and OpenVINO has no kernel for the whole; NNCF is hidden, and Python has no ModelOpt."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr(quantizers, "computes_bf16", lambda: False)
    opened = open_bundle(bundle)
    images = np.random.default_rng(0).integers(0, 256, (4, *opened.manifest.image_size, 3), dtype=np.uint8)
    report = compare(opened, images, 1, Path(sys.executable))
    assert [row["name"] for row in report["rows"]] == ["dovit", "ONNX Runtime, min-max"]
    assert report["rows"][0]["in_int8"] == report["products"] == 8
    assert report["rows"][1]["in_int8"] in (8, 12)
    assert all(0.001 < row["error"] < 0.1 for row in report["rows"])
    assert report["left_out"]["NNCF, ONNX model"] == "the package nncf is not installed"
    assert (report["calibrated"], report["measured"]) == (3, 1)
    assert report["error_of_bf16"] is None  # without bf16 OpenVINO would run in float32


def test_the_error_of_tokens() -> None:
    """RMS difference over RMS value, by its definition."""
    one, other = np.ones((1, 4, 3)), np.full((1, 4, 3), 1.25)
    assert quantizers._error([other, one], [one, one]) == pytest.approx(0.125)


def test_what_cannot_be_compared_is_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="1 images for 12 to calibrate with and to measure; give more"):
        command(bundle, [str(tmp_path)])
    assert not capsys.readouterr().out
