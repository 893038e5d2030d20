"""The kernels of the device that a test asks for."""

from __future__ import annotations

import ctypes

import pytest
from kernel_launches import Kernels

from dovit import plugins


@pytest.fixture
def emulated(emulated_library: ctypes.CDLL) -> Kernels:
    return Kernels(emulated_library, "cpu")


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "cpu":
        found = request.getfixturevalue("emulated")
        assert isinstance(found, Kernels)
        return found
    if plugins.library() is None:
        pytest.skip(f"left out: {plugins.left_out()}")
    return Kernels(plugins.load(), "cuda")
