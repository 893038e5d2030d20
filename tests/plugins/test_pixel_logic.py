"""The resize and normalise kernels' own source, compiled for the host, against Pillow and torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dovit.runtime.resize import resize_image


@pytest.fixture(scope="module")
def library(host_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return host_library("host_pixels")


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def resized(library: ctypes.CDLL, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.full((*size, 3), 77, np.uint8)
    library.host_resize(pointer(image), image.shape[0], image.shape[1], pointer(out), *size)
    return out


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=300)
def test_resize_is_pillows(library: ctypes.CDLL, source: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    """To the bit, whichever direction Pillow takes first."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*source, 3), np.uint8)
    if seed % 3 == 0:
        image[image < 128], image[image >= 128] = 0, 255  # sums that end at the limits
    for target in (size, (source[0], size[1]), (size[0], source[1])):
        assert np.array_equal(resized(library, image, target), resize_image(image, target))


@pytest.mark.parametrize(
    ("source", "size"), [((1024, 2048), (512, 512)), ((333, 517), (192, 384)), ((64, 96), (512, 1024))]
)
def test_resize_of_real_sizes(library: ctypes.CDLL, source: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    assert np.array_equal(resized(library, image, size), resize_image(image, size))


def test_normalise(library: ctypes.CDLL) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    mean, deviation = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
    out = np.full((3, 31, 17), np.nan, np.float32)
    library.host_normalise(pointer(pixels), pointer(out), 31 * 17, pointer(mean), pointer(deviation))
    expected = (torch.from_numpy(pixels).float() - torch.from_numpy(mean)) / torch.from_numpy(deviation)
    assert np.array_equal(out, expected.permute(2, 0, 1).numpy())
