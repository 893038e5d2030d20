"""The confidence and label kernels' own source, compiled for the host, against torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dovit.export.model.token_pass import confidence
from dovit.runtime.resize import labels_from_logits


@pytest.fixture(scope="module")
def library(host_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return host_library("host_maps")


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def confidences(library: ctypes.CDLL, logits: np.ndarray, size: int | None = None) -> np.ndarray:
    """With slices of `size` classes, as many as the kernel takes unless told."""
    batch, classes, count = logits.shape
    size = size or library.host_slice_size(classes)
    assert -(-classes // size) <= 8 or size < 16
    out = np.full((batch, count), -7, np.float32)
    library.host_confidence(int(logits.dtype == np.float16), pointer(logits), pointer(out), batch, classes, count, size)
    return out


@pytest.mark.parametrize("classes", [1, 2, 7, 19, 128, 129, 150, 1000])
@pytest.mark.parametrize("count", [1, 33, 989])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 3e4])
def test_confidence(library: ctypes.CDLL, classes: int, count: int, dtype: type, scale: float) -> None:
    random = np.random.default_rng(classes)
    logits = (scale * random.normal(size=(2, classes, count))).clip(-6e4, 6e4).astype(dtype)
    expected = torch.from_numpy(logits.astype(np.float64)).softmax(dim=1).amax(dim=1).numpy()
    for size in (None, 3, classes):
        made = confidences(library, logits, size)
        np.testing.assert_allclose(made, expected, rtol=3e-6)
        assert (made <= 1).all()


def test_confidence_of_what_is_no_number(library: ctypes.CDLL) -> None:
    """As torch has it, so that a broken token is kept on every backend: wherever the odd class lies."""
    lowest, inf, nan = np.finfo(np.float32).min, np.inf, np.nan
    rows = [
        [1, nan, 0],
        [nan, 1, 0],
        [nan, nan, nan],
        [-inf, -inf, -inf],
        [-inf, 0, 0],
        [0, -inf, -inf],
        [5, 5, 5],
        [inf, 0, 1],
        [0, 1, inf],
        [inf, inf, 0],
        [inf, -inf, nan],
        [lowest, lowest, lowest],
        [lowest, -inf, 0],
    ]
    for padding in (0, 40):  # classes of other slices and groups
        padded = [[*(-inf for _ in range(padding)), *row] for row in rows]
        logits = np.ascontiguousarray(np.array(padded, np.float32).T[None])
        expected = confidence(torch.from_numpy(logits)).numpy()
        for size in (1, 2, 16, 64):
            np.testing.assert_allclose(confidences(library, logits, size), expected, rtol=1e-6)


def labels(
    library: ctypes.CDLL, logits: np.ndarray, scale: int, threads: int = 128, backwards: bool = False
) -> np.ndarray:
    batch, classes, height, width = logits.shape
    out = np.full((batch, height * scale, width * scale), -7, np.int16)
    library.host_labels(
        int(logits.dtype == np.float16),
        pointer(logits),
        pointer(out),
        batch,
        classes,
        height,
        width,
        scale,
        threads,
        int(backwards),
    )
    return out


def check_labels(library: ctypes.CDLL, logits: np.ndarray, scale: int) -> None:
    out = labels(library, logits, scale)
    assert out.min() >= 0 and out.max() < logits.shape[1]
    wide = F.interpolate(torch.from_numpy(logits.astype(np.float64)), scale_factor=scale, mode="bilinear").numpy()
    chosen = np.take_along_axis(wide, out[:, None].astype(np.int64), axis=1)[:, 0]
    assert (wide.max(axis=1) - chosen).max() < 1e-5  # where it is another class, both are equally large
    assert (out == wide.argmax(axis=1)).mean() > 0.999


def smooth(random: np.random.Generator, classes: int, size: tuple[int, int]) -> np.ndarray:
    """Logits as a segmenter has them: a few large areas, so that most cells are of one class."""
    coarse = torch.from_numpy(random.normal(size=(2, classes, 3, 4)))
    return F.interpolate(coarse, size=size, mode="bicubic").numpy()


@pytest.mark.parametrize("classes", [1, 2, 19, 300])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3), (12, 24), (5, 70)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_labels(library: ctypes.CDLL, classes: int, size: tuple[int, int], scale: int, dtype: type, kind: str) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, classes, *size)) if kind == "random" else smooth(random, classes, size)
    check_labels(library, np.ascontiguousarray(logits.astype(dtype)), scale)


@pytest.mark.parametrize("threads", [1, 7, 32, 1024])
@pytest.mark.parametrize("backwards", [False, True])
def test_labels_do_not_know_the_threads(library: ctypes.CDLL, threads: int, backwards: bool) -> None:
    logits = smooth(np.random.default_rng(1), 7, (9, 50)).astype(np.float32)
    assert np.array_equal(labels(library, logits, 8, threads, backwards), labels(library, logits, 8))


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_labels_of_large_areas(library: ctypes.CDLL, scale: int) -> None:
    """At a real size, mostly the corners' path: against float64, and against the same pixels one by one."""
    logits = smooth(np.random.default_rng(2), 19, (32, 64)).astype(np.float32)
    check_labels(library, logits, scale)
    each = resized_labels(library, logits, (32 * scale, 64 * scale))
    assert (labels(library, logits, scale) == each).mean() > 0.9999


def resized_labels(library: ctypes.CDLL, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    batch, classes, height, width = logits.shape
    out = np.full((batch, *size), -7, np.int16)
    library.host_resized_labels(pointer(logits), pointer(out), batch, classes, height, width, *size)
    return out


@pytest.mark.parametrize("source", [(1, 1), (7, 3), (12, 24)])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (24, 11), (37, 48), (300, 200)])
def test_labels_of_any_size(library: ctypes.CDLL, source: tuple[int, int], size: tuple[int, int]) -> None:
    """Against float64, and against what the runtime on a CPU makes of the same logits."""
    logits = np.random.default_rng(0).normal(size=(2, 19, *source)).astype(np.float32)
    out = resized_labels(library, logits, size)
    wide = F.interpolate(torch.from_numpy(logits.astype(np.float64)), size=size, mode="bilinear").numpy()
    chosen = np.take_along_axis(wide, out[:, None].astype(np.int64), axis=1)[:, 0]
    assert (wide.max(axis=1) - chosen).max() < 1e-5
    on_the_cpu = np.stack([labels_from_logits(image, size) for image in logits])
    assert (out == on_the_cpu).mean() > 0.999


@pytest.mark.parametrize("scale", [2, 3])
def test_equal_classes_give_the_first(library: ctypes.CDLL, scale: int) -> None:
    """All equal; then two classes equal everywhere but at one position, which only its cells may show."""
    assert (labels(library, np.zeros((1, 5, 2, 2), np.float32), scale) == 0).all()
    logits = np.zeros((1, 3, 5, 5), np.float32)
    logits[0, 1:] = 1
    logits[0, 2, 2, 2] = 2
    out = labels(library, logits, scale)[0]
    wide = F.interpolate(torch.from_numpy(logits), scale_factor=scale, mode="bilinear")[0]
    assert np.array_equal(out, np.where(wide[2] > 1, 2, 1))


def test_nan_logits(library: ctypes.CDLL) -> None:
    """A NaN is no largest logit, except in the first class, where nothing is larger: as one pixel has it, so has a cell."""
    logits = smooth(np.random.default_rng(3), 6, (8, 8)).astype(np.float32)
    logits[:, 3, 2:4, 1:5] = np.nan
    logits[:, 0, 6, 6] = np.nan
    assert (labels(library, logits, 4) == resized_labels(library, logits, (32, 32))).mean() > 0.999
