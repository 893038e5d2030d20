"""The decide kernels' own source, compiled for the host, against the definition in torch."""

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


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def run(
    library: ctypes.CDLL,
    q: np.ndarray,
    threshold: float,
    capacities: list[int],
    threads: int = 1024,
    backwards: bool = False,
) -> tuple[np.ndarray, np.ndarray, int]:
    """(keep [B, K], slots [B, M], number of the capacity); what the kernel must not write is poisoned."""
    batch, count = q.shape
    q = np.ascontiguousarray(q, np.float32)
    keep, slots = np.full(batch * count + 5, -77, np.int32), np.full(batch * count + 5, -77, np.int32)
    allowed, choice = np.asarray(sorted(capacities), np.int64), ctypes.c_int(-77)
    capacity = library.host_decide(
        pointer(q),
        ctypes.c_float(threshold),
        pointer(allowed),
        len(allowed),
        batch,
        count,
        threads,
        int(backwards),
        pointer(keep),
        pointer(slots),
        ctypes.byref(choice),
    )
    kept, placed = keep[: batch * capacity], slots[: batch * count]
    assert (keep[kept.size :] == -77).all() and (slots[placed.size :] == -77).all()
    return kept.reshape(batch, capacity), placed.reshape(batch, count), choice.value


def check(
    library: ctypes.CDLL,
    q: np.ndarray,
    threshold: float,
    capacities: list[int],
    threads: int = 1024,
    backwards: bool = False,
) -> None:
    keep, slots, choice = run(library, q, threshold, capacities, threads, backwards)
    expected = decide(torch.from_numpy(q), float(np.float32(threshold)), capacities).numpy()
    assert np.array_equal(keep, expected)
    assert sorted(capacities)[choice] == keep.shape[1] and sorted(capacities).index(keep.shape[1]) == choice
    places = np.full(q.shape, -1, np.int32)
    np.put_along_axis(places, expected, np.arange(expected.shape[1], dtype=np.int32)[None], axis=1)
    assert np.array_equal(slots, places)


KINDS = ["random", "equal", "ties", "nan", "zeros", "tiny", "close", "wide"]


def confidences(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    q = random.random(shape, np.float32)
    if kind == "equal":
        q[:] = 0.75
    elif kind == "ties":
        q = np.round(q, 1)
    elif kind == "nan":
        q[random.random(shape) < 0.3] = np.nan
    elif kind == "zeros":
        q = np.where(q < 0.5, np.float32(-0.0), np.float32(0.0))
    elif kind == "tiny":
        q = (q * 1e-41).astype(np.float32)  # denormal
    elif kind == "close":
        q = (1 - q * 1e-4).astype(np.float32)  # as a sure head has them: one digit, ties
    elif kind == "wide":
        q = random.integers(0, 2**32, shape, np.uint32).view(np.float32)  # any bits: every digit, both signs
    return q


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 111, 989, 1024, 1025, 8192, 8193, 65536])
@pytest.mark.parametrize("kind", KINDS)
def test_awkward_sizes_and_values(library: ctypes.CDLL, count: int, kind: str) -> None:
    q = confidences(kind, (2, count), np.random.default_rng(count))
    every = list(range(count + 1)) if count <= 1025 else [0, count // 3, count]
    middle = float(np.median(q[np.isfinite(q)])) if np.isfinite(q).any() else 0.5
    for threshold in (0.0, 0.5, middle, 1.0, -1.0):
        for capacities in (every, [0, count], [count], sorted({0, count // 5, count // 2, count})):
            check(library, q, threshold, capacities)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 7, 32, 1024])
@pytest.mark.parametrize("backwards", [False, True])
def test_every_capacity(library: ctypes.CDLL, kind: str, threads: int, backwards: bool) -> None:
    """Everything stops by itself, so that each number of tokens is filled in once; whatever order the threads run in."""
    q = np.nan_to_num(confidences(kind, (1, 130), np.random.default_rng(0)), nan=0.5)
    for capacity in range(131):
        check(library, q, -np.inf, [capacity, 130], threads, backwards)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 80)), elements=st.floats(width=32, allow_nan=True)
    ),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 80), max_size=5),
    st.sampled_from([1, 7, 32, 1024]),
    st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_anything(
    library: ctypes.CDLL, q: np.ndarray, threshold: float, capacities: list[int], threads: int, backwards: bool
) -> None:
    """Any floats, infinities among them, and any number of threads: the result does not know how many there are."""
    allowed = sorted({*(c for c in capacities if c <= q.shape[1]), q.shape[1]})
    check(library, q, threshold, allowed, threads, backwards)


def test_infinities(library: ctypes.CDLL) -> None:
    """−∞ lies above no threshold, so it always stays; +∞ is filled in last."""
    q = np.array([[np.inf, -np.inf, 0.5, np.finfo(np.float32).min, -np.inf, np.inf]], np.float32)
    for capacity, kept in ((2, [1, 4]), (3, [1, 3, 4]), (4, [1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (6, list(range(6)))):
        assert run(library, q, -np.inf, [capacity, 6])[0].tolist() == [kept]


def test_exact_needs_no_capacities(library: ctypes.CDLL) -> None:
    q = np.array([[0.9, 0.1, np.nan, 0.5, 0.95]], np.float32)
    keep, slots, choice = run(library, q, 0.5, [])
    assert keep.tolist() == [[1, 2, 3]] and slots.tolist() == [[-1, 0, 1, 2, -1]] and choice == 0


@pytest.mark.parametrize("count", [0, 1, 33, 989])
def test_slots_of_a_list(library: ctypes.CDLL, count: int) -> None:
    random = np.random.default_rng(count)
    for capacity in {0, count // 3, count}:
        keep = np.stack([np.sort(random.permutation(count)[:capacity]) for _ in range(3)]).astype(np.int32)
        slots = np.full((3, count), -77, np.int32)
        library.host_slots(pointer(keep), 3, count, capacity, pointer(slots))
        expected = np.full((3, count), -1, np.int32)
        np.put_along_axis(expected, keep.astype(np.int64), np.arange(capacity, dtype=np.int32)[None], axis=1)
        assert np.array_equal(slots, expected)
