"""Quantized bundles for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from dovit.engines.scenes import street_scenes
from dovit.export.cli import command
from dovit.export.quantization.bundle import Calibration, quantize
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.write import write_bundle


def quantized(bundle: Bundle, folder: Path, calibration: Calibration | None = None) -> Bundle:
    chosen = calibration or Calibration(street_scenes(bundle.manifest, 8))
    write_bundle(folder, lambda stage: quantize(bundle, "int8", chosen, stage, lambda _: None))
    return open_bundle(folder)


def constants(bundle: Bundle) -> dict[str, np.ndarray]:
    """All initializers of a bundle's steps."""
    found: dict[str, np.ndarray] = {}
    for step in bundle.manifest.steps:
        for tensor in onnx.load(bundle.onnx(step)).graph.initializer:
            found[tensor.name] = numpy_helper.to_array(tensor)
    return found


def export(**options: object) -> None:
    from dovit.export.cli import ExportPrecision

    if "precision" in options:
        options["precision"] = ExportPrecision(options["precision"])
    command(**options)  # type: ignore[arg-type]
