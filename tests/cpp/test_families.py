"""The C++ runtime with registers, rotary positions and lenses, and without token merging: labels, kept sets and confidences are
Python's to the bit."""

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


@pytest.mark.parametrize(
    ("decoder", "family", "head"),
    [
        *(("segmenter-linear-taps", family, "setr-k3") for family in BACKBONES),
        ("eomt", "registers", "setr-k3"),
        ("eomt", "rotary", "setr-k3"),
        ("segmenter-linear-taps", "registers", "lens"),
        ("segmenter-linear", "registers", "lens-unmerged"),
        ("segmenter-linear", "registers", "neighbours"),
    ],
)
def test_results_are_pythons(
    decoder: str, family: str, head: str, build: Callable[[str], Path], library_path: Path, tmp_path: Path
) -> None:
    model = randomised(small_config(decoder, head=head, family=family))
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


def test_queries_need_a_token(build: Callable[[str], Path], library_path: Path, tmp_path: Path) -> None:
    """A count of 0 is refused in both languages; a share that comes to less than a token keeps one."""
    make_bundle(randomised(small_config("eomt")), tmp_path)
    picture = random_images(small_config())[0].numpy()
    words = "counts 13, 0: give 2 falling numbers of tokens, from 24 to 1"
    with pytest.raises(Exception, match=words):
        CSession(build("release") / "libdovit_runtime.so", tmp_path, library_path)(picture, counts=[13, 0])
    with dovit.load(tmp_path) as session:
        with pytest.raises(dovit.UsageError, match=words):
            session(picture, counts=(13, 0))
        assert session(picture, keep=(0.5, 0)).kept == (12, 1)


def test_without_decisions_nothing_says_which_tokens_stay(
    build: Callable[[str], Path], library_path: Path, tmp_path: Path
) -> None:
    """Refused in both languages, in the same words; one threshold for all of no decisions says nothing."""
    make_bundle(randomised(small_config(layers=())), tmp_path)
    picture = random_images(small_config())[0].numpy()
    made = CSession(build("release") / "libdovit_runtime.so", tmp_path, library_path)
    with dovit.load(tmp_path) as session:
        for name, values in (("counts", [12]), ("threshold", [0.9, 0.8]), ("keep", [0.5])):
            words = f"{name}: the model has no decisions, so no token stops: leave {name} out"
            with pytest.raises(dovit.UsageError, match=words):
                session(picture, **{name: values})
            if name != "keep":  # the C API has counts alone
                with pytest.raises(Exception, match=words):
                    made(picture, **{name: values})
        assert session(picture, threshold=0.9).kept == made(picture, threshold=[0.9]).kept == ()
