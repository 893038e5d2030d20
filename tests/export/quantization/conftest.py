"""A trained bundle, and what it becomes in int8."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle
from quantized import quantized

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.bundle.open import Bundle, open_bundle

ASSET = Path(__file__).parents[3] / "assets" / "streets-tiny.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trained")
    make_bundle(load_model(ASSET, ReadOptions()).model, folder)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def int8(trained: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return quantized(trained, tmp_path_factory.mktemp("int8"))
