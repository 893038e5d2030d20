"""The confidence and label kernels' own source, compiled for the host, against torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dovit.export.model.token_pass import confidence


@pytest.fixture(scope="module")
def library(host_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return host_library("host_maps")


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def confidences(library: ctypes.CDLL, logits: np.ndarray) -> np.ndarray:
    batch, classes, count = logits.shape
    out = np.full((batch, count), -7, np.float32)
    library.host_confidence(int(logits.dtype == np.float16), pointer(logits), pointer(out), batch, classes, count)
    return out


@pytest.mark.parametrize("classes", [1, 2, 7, 19, 150, 1000])
@pytest.mark.parametrize("count", [1, 33, 989])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 3e4])
def test_confidence(library: ctypes.CDLL, classes: int, count: int, dtype: type, scale: float) -> None:
    random = np.random.default_rng(classes)
    logits = (scale * random.normal(size=(2, classes, count))).clip(-6e4, 6e4).astype(dtype)
    expected = torch.from_numpy(logits.astype(np.float64)).softmax(dim=1).amax(dim=1).numpy()
    np.testing.assert_allclose(confidences(library, logits), expected, rtol=3e-6)
    assert (confidences(library, logits) <= 1).all()


def test_confidence_of_what_is_no_number(library: ctypes.CDLL) -> None:
    """As torch has it, so that a broken token is kept on every backend."""
    rows = [[1, np.nan, 0], [np.nan, 1, 0], [-np.inf, -np.inf, -np.inf], [-np.inf, 0, 0], [5, 5, 5]]
    logits = np.ascontiguousarray(np.array(rows, np.float32).T[None])
    expected = confidence(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(confidences(library, logits), expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 19, 300])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3), (12, 24)])
@pytest.mark.parametrize("scale", [1, 2, 4, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_labels(library: ctypes.CDLL, classes: int, size: tuple[int, int], scale: int, dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(2, classes, *size)).astype(dtype)
    out = np.full((2, size[0] * scale, size[1] * scale), -7, np.int16)
    library.host_labels(int(dtype == np.float16), pointer(logits), pointer(out), 2, classes, *size, scale)
    wide = F.interpolate(torch.from_numpy(logits.astype(np.float64)), scale_factor=scale, mode="bilinear").numpy()
    chosen = np.take_along_axis(wide, out[:, None].astype(np.int64), axis=1)[:, 0]
    assert (wide.max(axis=1) - chosen).max() < 1e-5  # where it is another class, both are equally large
    assert (out == wide.argmax(axis=1)).mean() > 0.999


def test_equal_classes_give_the_first(library: ctypes.CDLL) -> None:
    logits = np.zeros((1, 5, 2, 2), np.float32)
    out = np.full((1, 4, 4), -7, np.int16)
    library.host_labels(0, pointer(logits), pointer(out), 1, 5, 2, 2, 2)
    assert (out == 0).all()
