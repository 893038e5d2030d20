"""The C++ runtime on backbones with registers and rotary positions: labels, kept sets and confidences are Python's to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from c_binding import Session as CSession
from models import BACKBONES, random_images, randomised, small_config

import dovit

pytestmark = pytest.mark.xdist_group("cpp")  # one worker builds the library, once


@pytest.mark.parametrize("family", BACKBONES)
def test_results_are_pythons(family: str, build: Callable[[str], Path], library_path: Path, tmp_path: Path) -> None:
    model = randomised(small_config("segmenter-linear-taps", head="setr-k3", family=family))
    make_bundle(model, tmp_path)
    made = CSession(build("release") / "libdovit_runtime.so", tmp_path, library_path)
    picture = random_images(small_config(image_size=(128, 160)))[0].numpy()
    settings: list[dict[str, Any]] = [
        {},
        {"schedule": "bucketed"},
        {"mode": "slide"},
        {"counts": [13, 5]},
        {"threshold": [0.0]},
    ]
    with dovit.load(tmp_path) as session:
        for setting in settings:
            expected, result = session(picture, return_logits=True, **setting), made(picture, **setting)
            assert np.array_equal(result.labels, expected.labels)
            assert result.kept == expected.kept
            assert np.array_equal(result.keep_maps, expected.keep_maps.reshape(result.keep_maps.shape))
            confidences = expected.confidence_maps.reshape(result.confidence_maps.shape)
            assert np.array_equal(result.confidence_maps, confidences, equal_nan=True)
            assert np.array_equal(result.logits, expected.logits)
