"""Awkward inputs for the kernels on an emulated GPU, under the undefined-behaviour sanitizer: any floats, ties, NaN, infinities,
equal classes, odd sizes. The files beside this one have more cases of usual inputs, on a GPU too."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dovit.export.model.token_pass import Cells, TokenState, confidence, decide, gather
from dovit.plugins.launch import Kernels
from dovit.runtime.resize import labels_from_logits, resize_image

POISON = -77


@pytest.fixture(scope="module")
def kernels(emulated_library: ctypes.CDLL) -> Kernels:
    return Kernels(emulated_library)


def address(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


def check_decision(kernels: Kernels, q: np.ndarray, threshold: float, capacities: list[int]) -> None:
    """Kept tokens, their slots and the chosen capacity equal the definition's; no other memory is written."""
    batch, count = q.shape
    q = np.ascontiguousarray(q, np.float32)
    keep, slots = (np.full(batch * count + 5, POISON, np.int32) for _ in range(2))
    staying, capacity = np.full(batch, POISON, np.int32), np.full(1, POISON, np.int32)
    allowed, xi = np.asarray(sorted(capacities), np.int64), np.asarray([threshold], np.float32)
    kernels.decide(
        confidence=address(q),
        threshold=address(xi),
        capacities=address(allowed),
        capacity_count=len(allowed),
        batch=batch,
        count=count,
        staying=address(staying),
        keep=address(keep),
        slots=address(slots),
        capacity=address(capacity),
        switch_handle=0,
        stream=0,
    )
    expected = decide(torch.from_numpy(q), float(xi[0]), sorted(capacities)).numpy()
    kept = int(capacity[0])
    assert np.array_equal(keep[: batch * kept].reshape(batch, kept), expected)
    places = np.full((batch, count), -1, np.int32)
    np.put_along_axis(places, expected, np.arange(kept, dtype=np.int32)[None], axis=1)
    assert np.array_equal(slots[: batch * count].reshape(batch, count), places)
    assert (keep[batch * kept :] == POISON).all() and (slots[batch * count :] == POISON).all()


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 80)), elements=st.floats(width=32, allow_nan=True)
    ),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 80), max_size=5),
)
@settings(deadline=None, max_examples=150)
def test_decide_on_any_floats(kernels: Kernels, q: np.ndarray, threshold: float, capacities: list[int]) -> None:
    check_decision(kernels, q, threshold, sorted({*(c for c in capacities if c <= q.shape[1]), q.shape[1]}))


KINDS = ["random", "equal", "ties", "nan", "zeros", "denormal", "close to one", "any bits", "infinities"]


@pytest.mark.parametrize("kind", KINDS)
def test_decide_for_every_capacity(kernels: Kernels, kind: str) -> None:
    """Everything stops by itself, so that each number of tokens is filled up once."""
    noise = np.random.default_rng(0)
    q = noise.random((2, 130), np.float32)
    q = {
        "random": q,
        "equal": np.full_like(q, 0.75),
        "ties": q.round(1),
        "nan": np.where(q < 0.3, np.float32(np.nan), q),
        "zeros": np.where(q < 0.5, np.float32(-0.0), np.float32(0.0)),
        "denormal": (q * 1e-41).astype(np.float32),
        "close to one": (1 - q * 1e-4).astype(np.float32),
        "any bits": noise.integers(0, 2**32, q.shape, np.uint32).view(np.float32),
        "infinities": np.where(q < 0.5, np.float32(-np.inf), np.where(q < 0.7, np.float32(np.inf), q)),
    }[kind]
    for capacity in range(131):
        check_decision(kernels, q, -1.0 if kind != "infinities" else -np.inf, [capacity, 130])


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("channels", [7, 12, 24])
@pytest.mark.parametrize(
    ("dtype", "merging"),
    [
        (torch.float32, "class token"),
        (torch.float16, "class token"),
        (torch.float16, "none"),
        (torch.float32, "cells"),
        (torch.float16, "cells"),
    ],
)
def test_gather_where_only_the_device_knows_how_many_tokens_there_are(
    kernels: Kernels, dtype: torch.dtype, merging: str, channels: int, prefix: int
) -> None:
    """As in a captured graph: the launch has room for all positions, and `actual_count` says how many tokens there are."""
    batch, count, capacity, positions, columns = 2, 111, 64, 225, 15
    merge, cells = merging == "class token", Cells((15, columns), 4) if merging == "cells" else None
    prefix += cells.count if cells else 0
    noise = torch.Generator().manual_seed(channels)
    rows = [torch.randperm(positions, generator=noise)[:count].sort().values for _ in range(batch)]
    before = TokenState(
        torch.randn(batch, prefix + count, channels, generator=noise).to(dtype),
        torch.stack(rows).to(torch.int32),
        torch.randn(batch, positions, channels, generator=noise).to(dtype),
        torch.randn(batch, channels, generator=noise),
        positions - count,
    )
    keep = decide(torch.rand(batch, count, generator=noise), -1.0, [capacity, count])
    expected = gather(before, keep, prefix, merge=merge, cells=cells)
    slots = np.full((batch, count), -1, np.int32)
    np.put_along_axis(slots, keep.numpy(), np.arange(capacity, dtype=np.int32)[None].repeat(batch, 0), axis=1)
    tokens, index, full = before.tokens.numpy(), before.index.numpy(), before.full.numpy().copy()
    kept = np.full((batch, prefix + capacity, channels), np.nan, tokens.dtype)
    kept_index = np.full((batch, capacity), POISON, np.int32)
    sums, after = before.stopped_sum.numpy(), np.full((batch, channels), np.nan, np.float32)
    counts, actual = np.array([before.stopped_count, POISON], np.int64), np.array([count], np.int32)
    scratch = np.full(kernels.gather_scratch_bytes(batch, positions, channels), 255, np.uint8)
    kernels.gather(
        "float16" if dtype == torch.float16 else "float32",
        *map(address, (tokens, index, slots, kept, kept_index, full)),
        *(map(address, (sums, after)) if merge else (0, 0)),
        *map(address, (counts[:1], counts[1:], actual)),
        batch,
        positions,
        capacity,
        prefix,
        positions,
        channels,
        *((cells.side, columns) if cells else (0, 0)),
        address(scratch),
        0,
    )
    assert np.array_equal(kept[:, prefix:], expected.tokens[:, prefix:].numpy())
    assert np.array_equal(kept_index, expected.index.numpy())
    assert counts.tolist() == [before.stopped_count, expected.stopped_count]
    if merge:
        np.testing.assert_allclose(after, expected.stopped_sum.numpy(), rtol=1e-5, atol=1e-5)
    else:
        outer = prefix - (cells.count if cells else 0)
        assert np.array_equal(kept[:, :outer], tokens[:, :outer]) and (scratch == 255).all()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    wanted = expected.tokens[:, :prefix].float().numpy()
    np.testing.assert_allclose(kept[:, :prefix].astype(np.float32), wanted, rtol=tolerance, atol=tolerance)
    for image in range(batch):  # stopping tokens are in their places, and nothing else was touched
        stopping = np.setdiff1d(np.arange(count), keep[image].numpy())
        places = index[image, stopping]
        assert np.array_equal(full[image, places], tokens[image, prefix + stopping])
        others = np.setdiff1d(np.arange(positions), places)
        assert np.array_equal(full[image, others], before.full[image, others].numpy())


def test_confidence_of_logits_that_are_not_finite(kernels: Kernels) -> None:
    """As in torch, so that such a token is kept on every backend, whichever class is not finite."""
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
    for padding in (0, 40, 150):  # classes of other slices and groups
        padded = [[*(-inf for _ in range(padding)), *row] for row in rows]
        logits = np.ascontiguousarray(np.array(padded, np.float32).T[None])  # [1, C, M]
        made = np.full((1, len(rows)), POISON, np.float32)
        kernels.confidence("float32", address(logits), address(made), 1, padding + 3, len(rows), 0)
        np.testing.assert_allclose(made, confidence(torch.from_numpy(logits)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 3e4])
def test_confidence_of_small_and_large_logits(kernels: Kernels, scale: float) -> None:
    for classes in (2, 19, 129):
        logits = (scale * np.random.default_rng(classes).normal(size=(2, classes, 33))).clip(-6e4, 6e4)
        for dtype in (np.float32, np.float16):
            given, made = logits.astype(dtype), np.full((2, 33), POISON, np.float32)
            kernels.confidence(np.dtype(dtype).name, address(given), address(made), 2, classes, 33, 0)
            expected = torch.from_numpy(given.astype(np.float64)).softmax(dim=1).amax(dim=1).numpy()
            np.testing.assert_allclose(made, expected, rtol=3e-6)
            assert (made <= 1).all()


def labels(kernels: Kernels, logits: np.ndarray, size: tuple[int, int], *, resized: bool = False) -> np.ndarray:
    """By `labels` where the size is a multiple, or by `resized_labels`."""
    batch, classes, height, width = logits.shape
    made = np.full((batch, *size), 77, np.int16 if classes > 256 else np.uint8)
    if resized:
        kernels.resized_labels("float32", address(logits), address(made), batch, classes, height, width, *size, 0)
    else:
        kernels.labels("float32", address(logits), address(made), batch, classes, height, width, size[0] // height, 0)
    return made


def smooth(seed: int, classes: int, size: tuple[int, int]) -> np.ndarray:
    """Logits as a segmenter has them: a few large areas, so that most cells are of one class."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, classes, 3, 4)))
    return F.interpolate(coarse, size=size, mode="bicubic").float().numpy()


@pytest.mark.parametrize("scale", [2, 3])
def test_equal_classes_give_the_first(kernels: Kernels, scale: int) -> None:
    """All equal; then two classes equal everywhere but at one position, which only its cells may show."""
    assert (labels(kernels, np.zeros((1, 5, 2, 2), np.float32), (2 * scale, 2 * scale)) == 0).all()
    logits = np.zeros((1, 3, 5, 5), np.float32)
    logits[0, 1:] = 1
    logits[0, 2, 2, 2] = 2
    made = labels(kernels, logits, (5 * scale, 5 * scale))[0]
    wide = F.interpolate(torch.from_numpy(logits), scale_factor=scale, mode="bilinear")[0]
    assert np.array_equal(made, np.where(wide[2] > 1, 2, 1))


def test_nan_logits(kernels: Kernels) -> None:
    """A NaN is no largest logit, except in the first class, where nothing is larger: as one pixel has it, so has a cell."""
    logits = smooth(3, 6, (8, 8))
    logits[:, 3, 2:4, 1:5] = np.nan
    logits[:, 0, 6, 6] = np.nan
    cells, pixels = (labels(kernels, logits, (32, 32), resized=resized) for resized in (False, True))
    assert (cells == pixels).mean() > 0.999


@pytest.mark.parametrize("scale", [4, 16])
def test_labels_of_large_areas(kernels: Kernels, scale: int) -> None:
    """Mostly the path for cells whose corners agree: the same as pixel by pixel."""
    logits = smooth(2, 19, (16, 32))
    size = (16 * scale, 32 * scale)
    assert (labels(kernels, logits, size) == labels(kernels, logits, size, resized=True)).mean() > 0.9999


@pytest.mark.parametrize("source", [(1, 1), (7, 3), (12, 24)])
@pytest.mark.parametrize("size", [(1, 1), (24, 11), (37, 48)])
def test_labels_of_any_size_are_those_of_the_cpu(
    kernels: Kernels, source: tuple[int, int], size: tuple[int, int]
) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 19, *source)).astype(np.float32)
    on_the_cpu = np.stack([labels_from_logits(image, size) for image in logits])
    assert (labels(kernels, logits, size, resized=True) == on_the_cpu).mean() > 0.999


def resized(kernels: Kernels, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    made = np.full((*size, 3), 77, np.uint8)
    height, width = image.shape[:2]
    (across, across_width), (down, down_width) = (
        kernels.resize_taps(width, size[1]),
        kernels.resize_taps(height, size[0]),
    )
    scratch = np.empty(3 * max(height * size[1], size[0] * width), np.uint8)
    kernels.resize(
        address(image),
        height,
        width,
        address(made),
        *size,
        address(across),
        across_width,
        address(down),
        down_width,
        address(scratch),
        0,
    )
    return made


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_resize_is_pillows(kernels: Kernels, source: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    """To the bit, whichever direction Pillow takes first."""
    image = np.random.default_rng(seed).integers(0, 256, (*source, 3), np.uint8)
    if seed % 3 == 0:
        image[image < 128], image[image >= 128] = 0, 255  # sums that end at the limits
    for target in (size, (source[0], size[1]), (size[0], source[1])):
        assert np.array_equal(resized(kernels, image, target), resize_image(image, target))


@pytest.mark.parametrize(("source", "size"), [((333, 517), (192, 384)), ((64, 96), (256, 512))])
def test_resize_of_usual_sizes(kernels: Kernels, source: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    assert np.array_equal(resized(kernels, image, size), resize_image(image, size))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_normalise(kernels: Kernels, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 31, 17, 3), np.uint8)
    mean, deviation = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
    made = np.full((2, 3, 31, 17), np.nan, dtype)
    kernels.normalise(dtype, address(pixels), address(made), 2, 31, 17, mean, deviation, 0)
    expected = (torch.from_numpy(pixels).float() - torch.from_numpy(mean)) / torch.from_numpy(deviation)
    assert np.array_equal(made, expected.permute(0, 3, 1, 2).numpy().astype(dtype))
