"""The gather and reconstruct kernels' own source, compiled for the host, against the definition in torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dovit.export.model.token_pass import TokenState, decide, gather, reconstruct

SIZES = [
    (0, 0),
    (1, 1),
    (2, 1),
    (31, 30),
    (32, 0),
    (33, 33),
    (65, 20),
    (111, 64),
    (989, 400),
    (2500, 700),
]  # M tokens, of which K stay


@pytest.fixture(scope="module")
def library(host_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return host_library("host_rows")


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def state(batch: int, count: int, prefix: int, channels: int, dtype: torch.dtype, seed: int) -> TokenState:
    """After an earlier decision that left `count` of 2·count + 3 positions."""
    noise = torch.Generator().manual_seed(seed)
    positions = 2 * count + 3
    rows = [torch.randperm(positions, generator=noise)[:count].sort().values for _ in range(batch)]
    return TokenState(
        torch.randn(batch, prefix + count, channels, generator=noise).to(dtype),
        torch.stack(rows).to(torch.int32),
        torch.randn(batch, positions, channels, generator=noise).to(dtype),
        torch.randn(batch, channels, generator=noise),
        positions - count,
    )


@pytest.mark.parametrize(("count", "capacity"), SIZES)
@pytest.mark.parametrize("channels", [8, 12, 24, 7])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gather(
    library: ctypes.CDLL, count: int, capacity: int, channels: int, prefix: int, dtype: torch.dtype
) -> None:
    batch = 2
    before = state(batch, count, prefix, channels, dtype, seed=count)
    q = torch.rand(batch, count, generator=torch.Generator().manual_seed(1))
    keep = decide(q, -1.0, [capacity, count])  # all stop, the least confident fill up
    assert keep.shape[1] == capacity
    expected = gather(before, keep, prefix)

    slots = np.full((batch, count), -1, np.int32)
    np.put_along_axis(slots, keep.numpy(), np.arange(capacity, dtype=np.int32)[None].repeat(batch, 0), axis=1)
    tokens, index = before.tokens.numpy(), before.index.numpy()
    full = before.full.numpy().copy()
    kept = np.full((batch, prefix + capacity, channels), np.nan, tokens.dtype)
    kept_index = np.full((batch, capacity), -7, np.int32)
    after = np.full((batch, channels), np.nan, np.float32)
    stopped = np.array([before.stopped_count, -7], np.int64)
    scratch = np.full((batch, -(-count // 64), channels), np.nan, np.float32)
    # in a captured graph only the device knows how many tokens came: as if there could be any number up to all positions
    actual = np.array([count], np.int32) if prefix == 1 else None
    library.host_gather(
        int(dtype == torch.float16),
        pointer(tokens),
        pointer(index),
        pointer(slots),
        pointer(kept),
        pointer(kept_index),
        pointer(full),
        pointer(before.stopped_sum.numpy()),
        pointer(after),
        pointer(stopped[:1]),
        pointer(stopped[1:]),
        None if actual is None else pointer(actual),
        batch,
        count if actual is None else full.shape[1],
        capacity,
        prefix,
        full.shape[1],
        channels,
        pointer(scratch),
    )
    assert np.array_equal(kept[:, prefix:], expected.tokens[:, prefix:].numpy())
    assert np.array_equal(kept_index, expected.index.numpy())
    assert stopped.tolist() == [before.stopped_count, expected.stopped_count]
    np.testing.assert_allclose(after, expected.stopped_sum.numpy(), rtol=1e-5, atol=1e-5)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    np.testing.assert_allclose(
        kept[:, :prefix].astype(np.float32), expected.tokens[:, :prefix].float().numpy(), rtol=tolerance, atol=tolerance
    )
    for image in range(batch):  # stopping tokens are in their places, and nothing else was touched
        stopping = np.setdiff1d(np.arange(count), keep[image].numpy())
        places = index[image, stopping]
        assert np.array_equal(full[image, places], tokens[image, prefix + stopping])
        others = np.setdiff1d(np.arange(full.shape[1]), places)
        assert np.array_equal(full[image, others], before.full[image, others].numpy())


@pytest.mark.parametrize("count", [0, 1, 2, 33, 111, 989])
@pytest.mark.parametrize("channels", [8, 12, 7])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_reconstruct(library: ctypes.CDLL, count: int, channels: int, prefix: int, dtype: torch.dtype) -> None:
    before = state(3, count, prefix, channels, dtype, seed=count)
    full = before.full.numpy().copy()
    library.host_reconstruct(
        int(dtype == torch.float16),
        pointer(before.tokens.numpy()),
        pointer(before.index.numpy()),
        pointer(full),
        3,
        count,
        prefix,
        full.shape[1],
        channels,
    )
    assert np.array_equal(full, reconstruct(before, prefix).numpy())
