"""The decide kernel's own source, compiled for the host, against the definition in torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dovit.export.model.token_pass import decide


@pytest.fixture(scope="module")
def library(host_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return host_library("host_decide")


def run(
    library: ctypes.CDLL, q: np.ndarray, threshold: float, capacities: list[int], threads: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """(keep [B, K], slots [B, M]); what the kernel must not write is poisoned."""
    batch, count = q.shape
    q = np.ascontiguousarray(q, np.float32)
    keep, slots = np.full((batch, count), -77, np.int32), np.full((batch, count), -77, np.int32)
    allowed = np.asarray(sorted(capacities), np.int32)
    pointer = ctypes.c_void_p
    capacity = library.host_decide(
        q.ctypes.data_as(pointer), ctypes.c_float(threshold), allowed.ctypes.data_as(pointer), len(allowed), batch, count,
        threads, keep.ctypes.data_as(pointer), slots.ctypes.data_as(pointer),
    )  # fmt: skip
    assert (keep[:, capacity:] == -77).all()
    return keep[:, :capacity], slots


def check(library: ctypes.CDLL, q: np.ndarray, threshold: float, capacities: list[int], threads: int = 1024) -> None:
    keep, slots = run(library, q, threshold, capacities, threads)
    expected = decide(torch.from_numpy(q), float(np.float32(threshold)), capacities).numpy()
    assert np.array_equal(keep, expected)
    for row, kept in zip(slots, expected, strict=True):
        places = np.full(q.shape[1], -1)
        places[kept] = np.arange(len(kept))
        assert np.array_equal(row, places)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 111, 989, 1024, 1025, 8192, 65536])
@pytest.mark.parametrize("kind", ["random", "equal", "ties", "nan", "zeros", "tiny"])
def test_awkward_sizes_and_values(library: ctypes.CDLL, count: int, kind: str) -> None:
    random = np.random.default_rng(count)
    q = random.random((2, count), np.float32)
    if kind == "equal":
        q[:] = 0.75
    elif kind == "ties":
        q = np.round(q, 1)
    elif kind == "nan":
        q[random.random(q.shape) < 0.3] = np.nan
    elif kind == "zeros":
        q = np.where(q < 0.5, np.float32(-0.0), np.float32(0.0))
    elif kind == "tiny":
        q = (q * 1e-41).astype(np.float32)  # denormal
    every = list(range(count + 1)) if count <= 1025 else [0, count // 3, count]
    for threshold in (0.0, 0.5, float(np.nanmedian(q)), 1.0, -1.0):
        for capacities in (every, [0, count], [count], sorted({0, count // 5, count // 2, count})):
            check(library, q, threshold, capacities)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 80)), elements=st.floats(width=32, allow_nan=True)
    ),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 80), max_size=5),
    st.sampled_from([1, 7, 32, 1024]),
)
@settings(deadline=None, max_examples=400)
def test_anything(library: ctypes.CDLL, q: np.ndarray, threshold: float, capacities: list[int], threads: int) -> None:
    """Any floats, infinities among them, and any number of threads: the result does not know how many there are."""
    count = q.shape[1]
    q = np.where(np.isneginf(q), np.float32(0), q)  # torch's formulation has -inf for itself
    check(library, q, threshold, [*(c for c in capacities if c <= count), count], threads)


def test_exact_needs_no_capacities(library: ctypes.CDLL) -> None:
    q = np.array([[0.9, 0.1, np.nan, 0.5, 0.95]], np.float32)
    keep, slots = run(library, q, 0.5, [])
    assert keep.tolist() == [[1, 2, 3]] and slots.tolist() == [[-1, 0, 1, 2, -1]]
