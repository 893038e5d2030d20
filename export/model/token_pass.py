"""Token pass: the one definition. Every other backend (ONNX functions, CUDA kernels) is tested against this file.

    confidence  q = max_c softmax(H(f))[c]                                                           (2), (3)
    lens        L: R^E → R^E of a decision, optional: what the decoder is to read of a token that stops there, in the place of
                all later layers that it reads; q is then of H(L(f)). It may also read the patches around the token: what L's
                affine part makes of those that are still kept, and what the decoder reads of the stopped ones
    decide      a token stops if q > ξ, strictly; a NaN keeps; a stopped token never returns         (4), (5)
    gather      kept tokens are compacted in ascending order of position; stopping ones go to `full` (6), as
                L(token) where the decision has a lens, and as they are otherwise
    merge       T_0 ← ½ (T_0 + mean of all tokens stopped so far), T_0 the class token; optional, and without it T_0
                stays as it is                                                                   (8)
    merge cells R_c ← (n_c R_c + sum of the tokens of cell c that stop here) / (n_c + their number); optional, instead of (8).
                The grid of patches is cut into cells, and each has one merged token R_c behind the prefix tokens, which goes
                through all further layers. n_c is how many tokens of the cell have stopped: each layer adds log n_c to the
                scores of the key of R_c, so that it weighs as much as they would (as Token Merging does, arXiv 2210.09461),
                and leaves it out where n_c is 0
    reconstruct kept tokens go back to `full` at their positions                                     (3.3)

Sizes: B images, N patch tokens of E channels, M of them still kept before a decision and K after it, P prefix tokens
(class token, distillation token, registers, and behind them the merged tokens of G cells; any number) that are always kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e4  # added to an attention score, it leaves the key out; float16 can hold it


@dataclass(frozen=True)
class Cells:
    """The grid of patches (h, w), cut into cells of `side`×`side` patches; the last row and column of cells may be smaller."""

    grid: tuple[int, int]
    side: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells down and across."""
        return -(-self.grid[0] // self.side), -(-self.grid[1] // self.side)

    @property
    def count(self) -> int:
        """G."""
        return self.shape[0] * self.shape[1]

    def middles(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows [h'] and columns [w'] of the grid where the cells have their middles."""
        rows, columns = (
            (first + np.minimum(first + self.side, patches) - 1) / 2
            for patches in self.grid
            for first in [np.arange(0, patches, self.side)]
        )
        return rows, columns

    def contain(self, index: Tensor) -> Tensor:
        """[B, G, M] bool: whether a cell contains the patch at `index` [B, M]."""
        row, column = index // self.grid[1], index % self.grid[1]
        cell = row // self.side * self.shape[1] + column // self.side  # [B, M]
        return cell[:, None] == torch.arange(self.count, device=index.device)[:, None]

    def stopped(self, index: Tensor) -> Tensor:
        """n [B, G] float32: how many tokens of each cell have stopped where those at `index` [B, M] have not."""
        down, across = (
            torch.full((cells,), self.side).clamp(max=patches - self.side * torch.arange(cells))
            for cells, patches in zip(self.shape, self.grid, strict=True)
        )
        sizes = (down[:, None] * across).flatten().to(index.device)  # [G]
        return sizes - self.contain(index).float().sum(dim=2)

    def key_bias(self, index: Tensor, prefix: int) -> Tensor:
        """What the layers add to the scores of each key, [B, 1, 1, P+M] float32: log n of the merged tokens, the last G of the
        `prefix` tokens, and 0 for the others."""
        n = self.stopped(index)
        merged = torch.where(n > 0, n.clamp(min=1).log(), NEVER)
        return F.pad(merged, (prefix - self.count, index.shape[1]))[:, None, None]


@dataclass(frozen=True)
class TokenState:
    """Everything that a decision needs and leaves behind."""

    tokens: Tensor  # [B, P+M, E] prefix tokens first
    index: Tensor  # [B, M] int32: original positions of the patch tokens, ascending
    full: (
        Tensor  # [B, N, E] what the decoder reads of stopped tokens; of kept ones an earlier value, which nothing reads
    )
    stopped_sum: Tensor  # [B, E] float32: sum of all tokens stopped so far; zeros without merging, which alone needs it
    stopped_count: int  # per image; a batch has it in common because K is common

    @classmethod
    def start(cls, tokens: Tensor, prefix: int) -> TokenState:
        """Nothing has stopped: tokens [B, P+N, E]."""
        patches = tokens[:, prefix:]
        batch, count, channels = patches.shape
        index = torch.arange(count, dtype=torch.int32, device=tokens.device).repeat(batch, 1)
        return cls(tokens, index, patches, patches.new_zeros(batch, channels, dtype=torch.float32), 0)


def confidence(logits: Tensor) -> Tensor:
    """q [B, M] float32 from a head's logits [B, C, M]: the largest class probability of each token (2), (3)."""
    return logits.float().softmax(dim=1).amax(dim=1)


def keep_least_confident(q: Tensor, least: int) -> Tensor:
    """q [B, M] with 0 in the place of the lowest of each image, which no ξ stops, where `least` is 1: one token or more are kept.
    As it is where `least` is 0."""
    if not least:
        return q
    place = torch.arange(q.shape[1], device=q.device)
    return torch.where(place == q.argmin(dim=1, keepdim=True), 0.0, q)


def decide(q: Tensor, threshold: float, capacities: Sequence[int] | None = None) -> Tensor:
    """Which of M tokens stay: int64 [B, K], ascending, into the M tokens.

    `exact` (capacities None): those with q ≤ ξ or NaN; a batch must agree on how many.
    `bucketed`: K is the smallest capacity that holds the largest kept count in the batch; an image that keeps fewer is
    filled up with its stopping tokens of lowest confidence, ties by lower index.
    Raises ValueError where `exact` meets a batch with different counts, or no capacity holds the count.
    """
    stops = q > threshold  # [B, M]; NaN > ξ is False: a NaN keeps
    counts = (~stops).sum(dim=1)
    largest = int(counts.max())
    if capacities is None:
        if int(counts.min()) != largest:
            raise ValueError("an exact decision over a batch whose images keep different numbers of tokens")
        capacity = largest
    else:
        capacity = next((c for c in sorted(capacities) if c >= largest), -1)
        if capacity < 0:
            raise ValueError(f"no capacity in {sorted(capacities)} holds {largest} tokens")
    rank = torch.where(stops, q, -torch.inf)  # kept tokens come first, then stopping ones by confidence
    return rank.argsort(dim=1, stable=True)[:, :capacity].sort(dim=1).values


def gather(
    state: TokenState,
    keep: Tensor,
    prefix: int,
    read: Tensor | None = None,
    *,
    merge: bool = True,
    cells: Cells | None = None,
) -> TokenState:
    """The state after a decision: `keep` [B, K] stays (6), the others stop and, with `merge`, go into the class token (8),
    with `cells` into the merged tokens of their cells, the last of the `prefix` tokens.

    `read` [B, P+M, E]: what a lens makes of the tokens, which goes to `full` in the place of those that stop; the class token
    and the kept tokens see none of it. None: the tokens themselves."""
    patches = state.tokens[:, prefix:]  # [B, M, E]
    full = reconstruct(state if read is None else with_tokens(state, read), prefix)
    stopped_sum = state.stopped_sum
    if merge:
        stopped_sum = stopped_sum + _stopping(state, keep, prefix).sum(dim=1)
    stopped_count = state.stopped_count + state.index.shape[1] - keep.shape[1]

    prefix_tokens = state.tokens[:, :prefix]  # [B, P, E]
    if merge and prefix and stopped_count:
        class_token = 0.5 * (prefix_tokens[:, :1].float() + stopped_sum[:, None] / stopped_count)
        prefix_tokens = torch.cat([class_token.to(patches.dtype), prefix_tokens[:, 1:]], dim=1)
    index = state.index.gather(1, keep)
    if cells is not None:
        merged = prefix_tokens[:, -cells.count :].float()  # [B, G, E]
        before, after = (cells.stopped(i)[..., None] for i in (state.index, index))  # [B, G, 1]
        # where nothing had stopped, the merged token is no token's mean: whatever the layers made of it is left out
        earlier = torch.where(before > 0, before * merged, 0.0)
        sums = cells.contain(state.index).float() @ _stopping(state, keep, prefix)  # [B, G, E]
        merged = (earlier + sums) / after.clamp(min=1)
        prefix_tokens = torch.cat([prefix_tokens[:, : -cells.count], merged.to(patches.dtype)], dim=1)
    kept = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))  # [B, K, E]
    return TokenState(torch.cat([prefix_tokens, kept], dim=1), index, full, stopped_sum, stopped_count)


def _stopping(state: TokenState, keep: Tensor, prefix: int) -> Tensor:
    """[B, M, E] float32: the tokens that stop, and zeros for those that `keep` [B, K] names."""
    stops = torch.ones_like(state.index, dtype=torch.bool).scatter(1, keep, False)  # [B, M]
    return torch.where(stops[..., None], state.tokens[:, prefix:].float(), 0.0)


def add_cells(state: TokenState, prefix: int, cells: Cells) -> TokenState:
    """The state before the first decision, with a merged token for each cell behind the `prefix` tokens; they are zeros, and no
    layer attends to one before a token of its cell has stopped."""
    tokens = state.tokens
    merged = tokens.new_zeros(tokens.shape[0], cells.count, tokens.shape[2])
    return with_tokens(state, torch.cat([tokens[:, :prefix], merged, tokens[:, prefix:]], dim=1))


def reconstruct(state: TokenState, prefix: int) -> Tensor:
    """[B, N, E]: `full` with the kept tokens written in at their positions; prefix tokens are dropped."""
    patches = state.tokens[:, prefix:]  # [B, M, E]
    where = state.index.long()[..., None].expand_as(patches)
    return state.full.scatter(1, where, patches.to(state.full.dtype))  # autocast makes lenses bfloat16


def with_tokens(state: TokenState, tokens: Tensor) -> TokenState:
    """The same state after a block: tokens [B, P+M, E] replaced by the block's output."""
    return replace(state, tokens=tokens)
