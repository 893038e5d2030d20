"""Token pass: its functions one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dovit.export.model.token_pass import TokenState, confidence, decide, gather, reconstruct, with_tokens

NAN = math.nan
QUICK = settings(max_examples=150, deadline=None, derandomize=True)

# few values, so that ties and confidences equal to the threshold are common
confidences = st.sampled_from([0.125, 0.25, 0.5, 0.75, 0.875, 1.0, NAN])
thresholds = st.sampled_from([-1.0, 0.125, 0.25, 0.5, 0.75, 0.95, 1.0])


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """q [B, M]."""
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 30))
    return torch.tensor(
        draw(st.lists(st.lists(confidences, min_size=count, max_size=count), min_size=batch, max_size=batch))
    )


def kept_in_words(q: list[float], threshold: float) -> list[int]:
    return [i for i, value in enumerate(q) if math.isnan(value) or value <= threshold]


def filled_in_words(q: list[float], threshold: float, capacity: int) -> list[int]:
    """The kept tokens, and as many stopping ones as there is room for: lowest confidence first, then lowest index."""
    kept = kept_in_words(q, threshold)
    others = sorted((value, i) for i, value in enumerate(q) if i not in kept)
    return sorted(kept + [i for _, i in others[: capacity - len(kept)]])


# --- decide ---


@QUICK
@given(batches(), thresholds)
def test_exact_keeps_what_is_not_confident(q: Tensor, threshold: float) -> None:
    for image in q:
        assert decide(image[None], threshold).tolist() == [kept_in_words(image.tolist(), threshold)]
    expected = [kept_in_words(image, threshold) for image in q.tolist()]
    if len({len(kept) for kept in expected}) == 1:
        assert decide(q, threshold).tolist() == expected
    else:
        with pytest.raises(ValueError, match="different numbers"):
            decide(q, threshold)


@QUICK
@given(batches(), thresholds, st.sets(st.integers(0, 30), max_size=4))
def test_bucketed_fills_up_to_the_smallest_capacity_that_fits(q: Tensor, threshold: float, some: set[int]) -> None:
    count = q.shape[1]
    capacities = sorted({0, count, *(c for c in some if c < count)})
    largest = max(len(kept_in_words(image, threshold)) for image in q.tolist())
    capacity = min(c for c in capacities if c >= largest)
    keep = decide(q, threshold, capacities)
    assert keep.dtype == torch.int64
    assert keep.tolist() == [filled_in_words(image, threshold, capacity) for image in q.tolist()]
    for kept, image in zip(keep.tolist(), q.tolist(), strict=True):
        assert kept == sorted(set(kept))
        assert set(kept) >= set(kept_in_words(image, threshold))


def test_bucketed_fill_takes_the_lower_index_of_a_tie() -> None:
    q = torch.tensor([[0.9, 0.8, 0.1, 0.8, 0.8]])
    assert decide(q, 0.5, [0, 3, 5]).tolist() == [[1, 2, 3]]


def test_a_token_stops_strictly_above_the_threshold_and_nan_never() -> None:
    assert decide(torch.tensor([[0.5, NAN, 0.500001, 0.4]]), 0.5).tolist() == [[0, 1, 3]]
    assert decide(torch.tensor([[NAN, NAN]]), -1.0).tolist() == [[0, 1]]
    assert decide(torch.tensor([[1.0, 0.3]]), 1.0).tolist() == [[0, 1]]


def test_thresholds_are_compared_in_float32() -> None:
    """As every backend does: the nearest float32 of these is above them, and yet does not exceed ξ."""
    for xi in (0.985, 0.1):
        q = torch.tensor([xi])
        assert decide(q[None], xi).tolist() == [[0]]
        assert decide(torch.nextafter(q, torch.ones(1))[None], xi).tolist() == [[]]


def test_nothing_everything_and_one() -> None:
    assert decide(torch.tensor([[0.9, 0.8]]), 0.5).shape == (1, 0)
    assert decide(torch.tensor([[0.9, 0.8]]), 0.5, [0, 2]).shape == (1, 0)
    assert decide(torch.tensor([[0.9, 0.8]]), 0.5, [1, 2]).tolist() == [[1]]
    assert decide(torch.tensor([[0.1]]), 0.5, [0, 1]).tolist() == [[0]]
    assert decide(torch.tensor([[0.9]]), 0.5).tolist() == [[]]


def test_a_capacity_must_hold_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"no capacity in .* holds 2 tokens"):
        decide(torch.tensor([[0.1, 0.2]]), 0.5, [0, 1])


def test_confidence_is_the_largest_probability() -> None:
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exponentials = np.exp(logits.numpy())
    np.testing.assert_allclose(confidence(logits).numpy(), exponentials.max(1) / exponentials.sum(1), rtol=1e-6)
    assert confidence(logits.half()).dtype == torch.float32


# --- gather and reconstruct ---


@st.composite
def walks(draw: st.DrawFn) -> tuple[int, int, int, list[list[list[int]]], int]:
    """(B, N, P, for each decision and image the tokens that stay among those that are left, seed)."""
    batch, count, prefix = draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(st.integers(0, 2))
    left, walk = count, []
    for _ in range(draw(st.integers(1, 4))):
        kept = draw(st.integers(0, left))
        walk.append([sorted(draw(st.permutations(range(left)))[:kept]) for _ in range(batch)])
        left = kept
    return batch, count, prefix, walk, draw(st.integers(0, 1000))


@QUICK
@given(walks())
def test_gather_and_reconstruct(walk: tuple[int, int, int, list[list[list[int]]], int]) -> None:
    """Against a reference in float64 that keeps a value and a stopped flag for each position and moves no token."""
    batch, count, prefix, decisions, seed = walk
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(batch, prefix + count, 3))
    state = TokenState.start(torch.from_numpy(tokens), prefix)
    values, stopped, special = tokens[:, prefix:].copy(), np.zeros((batch, count), bool), tokens[:, :prefix].copy()

    for stays in decisions:
        keep = torch.tensor(stays, dtype=torch.int64).reshape(batch, -1)
        before = state
        assert np.array_equal(reconstruct(state, prefix).numpy(), values)
        state = gather(state, keep, prefix)
        # gathering and reconstructing lose nothing and change no patch token
        assert np.array_equal(reconstruct(state, prefix).numpy(), values)
        assert torch.equal(state.index, before.index.gather(1, keep))

        for image in range(batch):
            left = np.flatnonzero(~stopped[image])
            stopped[image, np.setdiff1d(left, left[stays[image]])] = True
            if prefix and stopped[image].any():
                special[image, 0] = (special[image, 0] + values[image, stopped[image]].mean(axis=0)) / 2
            # in ascending order, and none that stopped before
            assert state.index[image].tolist() == np.flatnonzero(~stopped[image]).tolist()
        assert state.stopped_count == stopped[0].sum()
        np.testing.assert_allclose(state.tokens[:, :prefix].numpy(), special, rtol=1e-5, atol=1e-6)
        for image in range(batch):
            assert np.array_equal(state.tokens[image, prefix:].numpy(), values[image, ~stopped[image]])

        # a block changes every token that is left, and the prefix
        change = rng.normal(size=tuple(state.tokens.shape))
        state = with_tokens(state, torch.from_numpy(change))
        special = change[:, :prefix].copy()
        for image in range(batch):
            values[image, ~stopped[image]] = change[image, prefix:]
    assert np.array_equal(reconstruct(state, prefix).numpy(), values)


def test_gather_leaves_its_input_alone() -> None:
    tokens = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
    state = TokenState.start(tokens, 1)
    before = tokens.clone()
    after = with_tokens(gather(state, torch.tensor([[1, 3]]), 1), torch.zeros(1, 3, 3))
    reconstruct(after, 1)
    assert torch.equal(tokens, before)
    assert torch.equal(state.full, before[:, 1:])
    assert torch.equal(after.full, before[:, 1:])


def test_the_class_token_in_half_precision_is_merged_in_float32() -> None:
    """300 tokens of 300: their sum, 90 000, is beyond float16."""
    tokens = torch.full((1, 301, 4), 300.0, dtype=torch.float16)
    state = gather(TokenState.start(tokens, 1), torch.zeros(1, 0, dtype=torch.int64), 1)
    assert state.tokens.dtype == torch.float16
    assert torch.equal(state.tokens, torch.full((1, 1, 4), 300.0, dtype=torch.float16))
