"""The gather kernel where it merges stopped tokens by cell, against float64."""

import pytest
import torch
from kernel_launches import SLOW, TYPES, Kernels, Pass, both, ints, place, slots_of, some_state, stream

from dovit.export.model.token_pass import Cells

CELLS = [
    (Cells((1, 1), 1), 1, 0),
    (Cells((4, 6), 3), 24, 11),  # nothing had stopped
    (Cells((7, 5), 2), 20, 20),  # nothing stops
    (Cells((7, 5), 40), 20, 0),
    (Cells((30, 41), 4), 989, 400),
    (Cells((30, 41), 19), 989, 400),  # 361 positions a cell: three rounds of a block
    (Cells((64, 128), 8), 5000, 3000),
]


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize(("cells", "count", "capacity"), CELLS)
@pytest.mark.parametrize("channels", [7, 384, 1024])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_gather_by_cell(
    kernels: Kernels, dtype: torch.dtype, cells: Cells, count: int, capacity: int, channels: int, prefix: int
) -> None:
    if kernels.device == "cpu" and (count * channels > 1 << 19 or (channels == 1024 and prefix != 1)):
        pytest.skip(SLOW)
    noise = torch.Generator().manual_seed(count)
    positions = cells.grid[0] * cells.grid[1]
    every = prefix + cells.count
    state = some_state(kernels.device, 2, count, every, channels, dtype, noise, positions)
    keep = torch.stack([torch.randperm(count, generator=noise)[:capacity].sort().values for _ in range(2)])
    state.tokens[0, every + keep[0, :1]] = torch.nan  # what stays reaches no merged token
    slots = slots_of(keep, count).to(kernels.device)
    runs = [Pass(state, slots, capacity, every, cells) for _ in range(2)]
    for one in runs:
        one.launch(kernels)
        one.kept.nan_to_num_()
        one.whole.nan_to_num_()
    state.tokens.nan_to_num_()
    runs[0].check(keep.to(kernels.device))
    assert all(torch.equal(a, b) for a, b in zip(*(one.results() for one in runs), strict=True)), (
        "not the same every time"
    )


@both
@pytest.mark.parametrize(
    ("side", "columns", "prefix", "sums"),
    [(-1, 6, 8, False), (3, 0, 8, False), (3, 7, 8, False), (3, 6, 3, False), (3, 6, 4, True)],
)
def test_cells_that_do_not_fit_are_refused(kernels: Kernels, side: int, columns: int, prefix: int, sums: bool) -> None:
    """24 positions: 7 columns do not divide them, and 4×6 patches are four cells of 3×3."""
    state = some_state(kernels.device, 1, 12, prefix, 8, torch.float32, torch.Generator().manual_seed(0))
    one = Pass(state, ints(state.index.device, 1, 12), 0, prefix)
    before, after = (state.stopped_sum, one.after) if sums else (None, None)
    status = kernels.dovit_gather(
        0,
        *map(place, (state.tokens, state.index, one.slots, one.kept, one.kept_index, one.full, before, after)),
        *map(place, (one.stopped[:1], one.stopped[1:], None)),
        *(1, 12, 0, prefix, 24, 8, side, columns),
        place(None),
        stream(kernels),
    )
    assert status == 1, "cudaErrorInvalidValue"
