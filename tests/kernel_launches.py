"""The kernels' C interface as tests call it, on a GPU or on an emulated one: launches over poisoned memory, and their checks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from dovit.export.model.token_pass import Cells, TokenState, gather, reconstruct
from dovit.plugins import launch
from dovit.plugins.structs import structs

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
EMULATED, GPU = pytest.param("cpu", id="emulated"), pytest.param("cuda", id="gpu", marks=pytest.mark.gpu)
both = pytest.mark.parametrize("kernels", [EMULATED, GPU], indirect=True)
on_a_gpu = pytest.mark.parametrize("kernels", [GPU], indirect=True)
SLOW = "too slow where threads are emulated"


class Kernels:
    """The library's C interface, and the device that its pointers are of. Kernels return their status."""

    def __init__(self, library: ctypes.CDLL, device: str) -> None:
        self.library, self.device = library, device
        self.kernels = launch.Kernels(library)

    def __getattr__(self, name: str) -> Callable[..., int]:
        kernel = name.removeprefix("dovit_")
        return partial(self.kernels.status, kernel) if kernel in structs() else getattr(self.library, name)


def place(tensor: Tensor | None) -> ctypes.c_void_p:
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def stream(kernels: Kernels) -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream if kernels.device == "cuda" else 0)


def ints(device: torch.device, *shape: int) -> Tensor:
    """Poisoned memory, so that values that a kernel does not write are wrong."""
    return torch.full(shape, -7, dtype=torch.int32, device=device)


class Decision:
    """The memory of one decision, larger than it must be, and its launch."""

    def __init__(self, q: Tensor, threshold: float, capacities: list[int]) -> None:
        self.q, self.batch, self.count = q, *q.shape
        self.threshold = torch.tensor([threshold], device=q.device)
        self.capacities = torch.tensor(sorted(capacities), dtype=torch.int64, device=q.device)
        self.staying, self.capacity = ints(q.device, self.batch), ints(q.device, 1)
        self.packed, self.slots = ints(q.device, self.batch * self.count + 5), ints(q.device, self.batch, self.count)

    def launch(self, kernels: Kernels, switch: int = 0) -> None:
        status = kernels.dovit_decide(
            place(self.q),
            place(self.threshold),
            place(self.capacities),
            len(self.capacities),
            self.batch,
            self.count,
            place(self.staying),
            place(self.packed),
            place(self.slots),
            place(self.capacity),
            switch,
            stream(kernels),
        )
        assert status == 0

    def keep(self) -> Tensor:
        used = self.batch * int(self.capacity)
        assert bool((self.packed[used:] == -7).all())
        return self.packed[:used].view(self.batch, -1) if used else self.packed.new_empty(self.batch, 0)


def slots_of(keep: Tensor, count: int) -> Tensor:
    places = torch.full((len(keep), count), -1, dtype=torch.int32)
    return places.scatter(1, keep, torch.arange(keep.shape[1], dtype=torch.int32).expand(len(keep), -1))


class Pass:
    """The memory of one gather and reconstruct, and their launches. `slots` come from a decision. `cells`: merge by these."""

    def __init__(
        self, state: TokenState, slots: Tensor, capacity: int, prefix: int, cells: Cells | None = None
    ) -> None:
        self.cells = cells
        self.state, self.slots, self.capacity, self.prefix = state, slots, capacity, prefix
        (self.batch, self.count), (_, self.positions, self.channels) = state.index.shape, state.full.shape
        tokens = state.tokens
        self.full, self.whole = state.full.clone(), torch.full_like(state.full, torch.nan)
        self.kept = tokens.new_full((self.batch, prefix + capacity, self.channels), torch.nan)
        self.kept_index = ints(state.full.device, self.batch, capacity)
        self.after = torch.full((self.batch, self.channels), torch.nan, device=state.full.device)
        self.stopped = torch.tensor([state.stopped_count, -7], device=state.full.device)
        self.scratch: Tensor | None = None

    def launch(self, kernels: Kernels) -> None:
        if self.scratch is None:
            size = kernels.dovit_gather_scratch_bytes(self.batch, self.count, self.channels)
            self.scratch = torch.full((size,), 255, dtype=torch.uint8, device=self.full.device)
        code = TYPES[self.kept.dtype]
        self.full.copy_(self.state.full)
        status = kernels.dovit_gather(
            code,
            place(self.state.tokens),
            place(self.state.index),
            place(self.slots),
            place(self.kept),
            place(self.kept_index),
            place(self.full),
            place(self.state.stopped_sum if self.cells is None else None),
            place(self.after if self.cells is None else None),
            place(self.stopped[:1]),
            place(self.stopped[1:]),
            place(None),
            self.batch,
            self.count,
            self.capacity,
            self.prefix,
            self.positions,
            self.channels,
            0 if self.cells is None else self.cells.side,
            0 if self.cells is None else self.cells.grid[1],
            place(self.scratch if self.cells is None else None),
            stream(kernels),
        )
        assert status == 0
        self.whole.copy_(self.full)
        status = kernels.dovit_reconstruct(
            code,
            place(self.kept),
            place(self.kept_index),
            place(self.whole),
            self.batch,
            self.capacity,
            self.prefix,
            self.positions,
            self.channels,
            stream(kernels),
        )
        assert status == 0

    def results(self) -> list[Tensor]:
        sums = [self.after] if self.cells is None else []
        return [self.kept, self.kept_index, self.full, self.stopped, self.whole, *sums]

    def check(self, keep: Tensor) -> None:
        """Copies to the bit; sums, class tokens and merged tokens against float64."""
        merge = self.cells is None
        expected = gather(self.state, keep, self.prefix, merge=merge, cells=self.cells)
        assert torch.equal(self.kept[:, self.prefix :], expected.tokens[:, self.prefix :])
        assert torch.equal(self.kept_index, expected.index)
        assert self.stopped.tolist() == [self.state.stopped_count, expected.stopped_count]
        prefix = self.state.tokens[:, : self.prefix].double()
        if self.cells is not None:
            prefix[:, -self.cells.count :] = self.merged(keep)
            outer = slice(None, self.prefix - self.cells.count)
            assert torch.equal(self.kept[:, outer], self.state.tokens[:, outer])
        else:
            patches = self.state.tokens[:, self.prefix :].double()
            stops = torch.ones_like(self.state.index, dtype=torch.bool).scatter(1, keep, False)[..., None]
            total = self.state.stopped_sum.double() + (patches * stops).sum(dim=1)
            torch.testing.assert_close(self.after.double(), total, rtol=1e-5, atol=1e-3)
            if self.prefix and expected.stopped_count:
                prefix[:, 0] = 0.5 * (prefix[:, 0] + total / expected.stopped_count)
        tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[self.kept.dtype]
        torch.testing.assert_close(self.kept[:, : self.prefix].double(), prefix, rtol=tolerance, atol=tolerance)
        others = torch.ones(self.full.shape[:2], dtype=torch.bool, device=self.full.device)
        others.scatter_(1, self.state.index.long(), False)
        assert torch.equal(self.full[others], self.state.full[others]), "a position of another token was touched"
        assert torch.equal(self.whole, reconstruct(self.state, self.prefix))

    def merged(self, keep: Tensor) -> Tensor:
        """The merged tokens [B, G, E] float64, cell by cell on the grid [rows, columns]."""
        assert self.cells is not None
        (rows, columns), side = self.cells.grid, self.cells.side
        found = []
        for image in range(self.batch):
            positions = self.state.index[image].long()
            stops = torch.ones_like(positions, dtype=torch.bool)
            stops[keep[image]] = False
            left, stopping = torch.zeros(2, rows * columns, dtype=torch.bool, device=self.kept.device)
            left[positions], stopping[positions] = True, stops
            tokens = torch.zeros(rows * columns, self.channels, dtype=torch.float64, device=self.kept.device)
            tokens[positions] = self.state.tokens[image, self.prefix :].double()
            grids = [flat.unflatten(0, (rows, columns)) for flat in (left, stopping, tokens)]
            old = self.state.tokens[image, self.prefix - self.cells.count : self.prefix].double()
            corners = [(row, column) for row in range(0, rows, side) for column in range(0, columns, side)]
            for merged, (row, column) in zip(old, corners, strict=True):
                here, stop, patch = (grid[row : row + side, column : column + side].flatten(0, 1) for grid in grids)
                before = int((~here).sum())
                total = before * merged + patch[stop].sum(dim=0)
                found.append(total / max(before + int(stop.sum()), 1))
        return torch.stack(found).unflatten(0, (self.batch, -1))


def some_state(
    device: str,
    batch: int,
    count: int,
    prefix: int,
    channels: int,
    dtype: torch.dtype,
    noise: torch.Generator,
    positions: int | None = None,
) -> TokenState:
    """`positions`: N, twice as many as `count` unless given."""
    positions = 2 * count if positions is None else positions
    rows = [torch.randperm(positions, generator=noise)[:count].sort().values for _ in range(batch)]
    return TokenState(
        torch.randn(batch, prefix + count, channels, generator=noise).to(dtype).to(device),
        torch.stack(rows).to(torch.int32).to(device),
        torch.randn(batch, positions, channels, generator=noise).to(dtype).to(device),
        torch.randn(batch, channels, generator=noise).to(device),
        positions - count,
    )
