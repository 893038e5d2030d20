"""Images, settings and comparisons for sessions of libdovit_runtime on stand-ins for the driver and TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from c_binding import Result
from models import random_images, small_config

import dovit

CAPACITIES = (0, 5, 11, 17, 24)
VERSIONS = {"tensorrt10": "10.14.1.48", "tensorrt11": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
GRAPH, SEGMENTED = 1, 2
ROUNDED = 3  # of dovit_schedule
Call = Callable[..., Any]


def picture(seed: int = 0) -> np.ndarray:
    return random_images(small_config(), seed=seed)[0].numpy()


def other(seed: int = 9) -> np.ndarray:
    """An image larger than the bundle's size in one direction and smaller in the other."""
    return np.ascontiguousarray(picture(seed).repeat(2, 0)[:100, :90])


def same(found: Result, expected: dovit.Result) -> None:
    """Sums are added in another order than ONNX Runtime's, so a confidence may differ in its last digits; nothing else may."""
    assert (found.kept, found.tokens) == (expected.kept, expected.tokens)
    assert np.array_equal(found.keep_maps, expected.keep_maps.reshape(found.keep_maps.shape))
    confidences = expected.confidence_maps.reshape(found.confidence_maps.shape)
    np.testing.assert_allclose(found.confidence_maps, confidences, rtol=1e-5)
    assert found.labels.dtype == expected.labels.dtype and (found.labels == expected.labels).mean() > 0.999
    assert expected.logits is not None
    assert np.abs(found.logits - expected.logits).max() <= 1e-4 * np.abs(expected.logits).max()
