"""The kernels and their launchers against the definition in torch: fresh inputs, poisoned outputs.

On a GPU, and everywhere on an emulated one (emulator/emulator.h), where fibres run the same sources: fewer cases, for those
are slow.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from emulate import HERE, compile_kernels, kernel_sources
from shared import compiled
from torch import Tensor

from dovit import plugins
from dovit.export.model.token_pass import Cells, TokenState, confidence, decide, gather, reconstruct
from dovit.plugins import launch
from dovit.plugins.structs import structs

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
EMULATED, GPU = pytest.param("cpu", id="emulated"), pytest.param("cuda", id="gpu", marks=pytest.mark.gpu)
both = pytest.mark.parametrize("kernels", [EMULATED, GPU], indirect=True)
SLOW = "too slow where threads are emulated"
on_a_gpu = pytest.mark.parametrize("kernels", [GPU], indirect=True)


class Kernels:
    """The library's C interface, and the device that its pointers are of. Kernels return their status."""

    def __init__(self, library: ctypes.CDLL, device: str) -> None:
        self.library, self.device = library, device
        self.kernels = launch.Kernels(library)

    def __getattr__(self, name: str) -> Callable[..., int]:
        kernel = name.removeprefix("dovit_")
        return partial(self.kernels.status, kernel) if kernel in structs() else getattr(self.library, name)


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


CASES = {
    1: 1240,
    2: 1240,
    31: 1240,
    32: 1240,
    33: 1240,
    111: 1240,
    989: 1240,
    1024: 1240,
    8192: 40,
    8193: 20,
    65536: 20,
}


def confidences(case: int, count: int, noise: torch.Generator) -> Tensor:
    q = torch.rand(1 + case % 3, count, generator=noise)
    match case % 7:
        case 1:
            return (q * 8).round() / 8
        case 2:
            return q.where(torch.rand(q.shape, generator=noise) >= 0.2, torch.nan)
        case 3:
            return torch.where(q < 0.5, -0.0, 0.0)
        case 4:
            return 1 - q * 1e-5  # a confident head's: few values, many ties
        case 5:
            return q * 1e-41  # denormal
        case 6:  # any bits
            return torch.randint(-(2**31), 2**31, q.shape, generator=noise).to(torch.int32).view(torch.float32)
    return q


def test_there_are_ten_thousand_cases() -> None:
    assert sum(CASES.values()) == 10_000


@both
@pytest.mark.parametrize("count", CASES)
def test_decide(kernels: Kernels, count: int) -> None:
    """Identical to the CPU's, ties, NaN, denormals and zeros of both signs included; so are the slots made of its list."""
    noise = torch.Generator().manual_seed(count)
    for case in range(CASES[count] if kernels.device == "cuda" else 7 if count <= 1024 else 2):
        q = confidences(case, count, noise)
        threshold = [0.5, 0.0, 0.9, 1.0, -1.0][case % 5]
        capacities = sorted({0, count // 4, count // 2, count})
        decision = Decision(q.to(kernels.device), threshold, capacities)
        decision.launch(kernels)
        expected = decide(q, threshold, capacities)
        assert torch.equal(decision.keep().cpu().long(), expected)
        assert torch.equal(decision.slots.cpu(), slots_of(expected, count))
        again = ints(decision.slots.device, *q.shape)
        capacity = expected.shape[1]
        assert kernels.dovit_slots(place(decision.packed), len(q), count, capacity, place(again), stream(kernels)) == 0
        assert torch.equal(again, decision.slots)


@both
def test_the_image_that_keeps_most_decides_for_all(kernels: Kernels) -> None:
    """In every order of a batch, with a capacity for each count, so that a count that is too small shows."""
    noise = torch.Generator().manual_seed(5)
    for staying in permutations((10, 130, 290, 55)):
        q = torch.stack([(torch.randperm(300, generator=noise) >= count) * 0.8 + 0.1 for count in staying])
        capacities = list(range(301))
        decision = Decision(q.to(kernels.device), 0.5, capacities)
        decision.launch(kernels)
        assert int(decision.capacity) == 290
        assert torch.equal(decision.keep().cpu().long(), decide(q, 0.5, capacities))
        fewer = Decision(q[[n for n in range(4) if staying[n] != 290]].to(kernels.device), 0.5, capacities)
        fewer.launch(kernels)
        assert int(fewer.capacity) == 130


def test_decide_sets_a_switch(emulated: Kernels) -> None:
    """To the number of the capacity, by which a SWITCH node picks its body. An emulated handle is the number's address."""
    q = torch.rand(2, 989, generator=torch.Generator().manual_seed(0))
    for threshold, expected in ((-1.0, 0), (0.2, 1), (0.45, 2), (0.9, 4), (1.0, 4)):
        chosen = torch.tensor([77], dtype=torch.int32)
        decision = Decision(q, threshold, [0, 250, 500, 750, 989])
        decision.launch(emulated, switch=chosen.data_ptr())
        assert int(chosen) == expected
        assert int(decision.capacity) == int(decision.capacities[expected])


@pytest.mark.parametrize("barriers", [True, False])
def test_no_barrier_is_missing(barriers: bool) -> None:
    """Every kernel under ThreadSanitizer, with a real thread for each of a block. Without barriers it must report a race."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to emulate a GPU with")
    races = HERE / "races.cpp"

    def build(folder: Path) -> None:
        compile_kernels("g++", folder, folder / "races", str(races), "-fsanitize=thread")

    folder = compiled("races", [*kernel_sources(), races], build)
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    if not barriers:
        environment["EMULATOR_WITHOUT_BARRIERS"] = "1"
    done = subprocess.run([folder / "races"], env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == barriers, done.stderr[:4000]
    assert ("data race" in done.stderr) == (not barriers)


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


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize(("count", "capacity"), [(1, 0), (1, 1), (33, 33), (111, 64), (989, 400), (8192, 3000)])
@pytest.mark.parametrize("channels", [7, 384, 1024])
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_gather_and_reconstruct(
    kernels: Kernels, dtype: torch.dtype, count: int, capacity: int, channels: int, prefix: int
) -> None:
    if kernels.device == "cpu" and (count * channels > 1 << 19 or (channels == 1024 and prefix != 1)):
        pytest.skip(SLOW)
    noise = torch.Generator().manual_seed(count)
    state = some_state(kernels.device, 2, count, prefix, channels, dtype, noise)
    decision = Decision(
        torch.rand(2, count, generator=noise).to(kernels.device), -1.0, [capacity, count]
    )  # all stop: filled up
    decision.launch(kernels)
    runs = [Pass(state, decision.slots, capacity, prefix) for _ in range(2)]
    for one in runs:
        one.launch(kernels)
    assert all(torch.equal(a, b) for a, b in zip(*(one.results() for one in runs), strict=True)), (
        "not the same every time"
    )
    runs[0].check(decision.keep().long())


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


@both
def test_no_token_left(kernels: Kernels) -> None:
    """A decision over no tokens, after one that kept none."""
    state = some_state(kernels.device, 2, 0, 1, 64, torch.float16, torch.Generator().manual_seed(0))
    decision = Decision(torch.empty(2, 0, device=kernels.device), 0.5, [0])
    decision.launch(kernels)
    assert int(decision.capacity) == 0
    one = Pass(state, decision.slots, 0, 1)
    one.launch(kernels)
    one.check(decision.keep().long())


@on_a_gpu
@pytest.mark.parametrize("dtype", list(TYPES))
def test_replayed_from_a_graph(kernels: Kernels, dtype: torch.dtype) -> None:
    """Decide, gather and reconstruct captured once; every replay sees the inputs and the threshold that are there then."""
    batch, count, capacity, prefix = 2, 989, 400, 1
    noise = torch.Generator().manual_seed(0)
    state = some_state(kernels.device, batch, count, prefix, 384, dtype, noise)
    decision = Decision(torch.rand(batch, count, generator=noise).to(kernels.device), 0.4, [capacity, count])
    one = Pass(state, decision.slots, capacity, prefix)
    decision.launch(kernels)
    one.launch(kernels)  # allocates its scratch memory, which a capture may not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decision.launch(kernels)
        one.launch(kernels)
    for threshold in (0.1, 0.3, 0.2, -1.0):
        fresh = some_state(kernels.device, batch, count, prefix, 384, dtype, noise)
        for name in ("tokens", "index", "full", "stopped_sum"):
            getattr(state, name).copy_(getattr(fresh, name))
        decision.q.copy_(torch.rand(batch, count, generator=noise))
        decision.threshold.fill_(threshold)
        for poisoned in (decision.packed, decision.slots, decision.capacity, one.kept_index, one.stopped[1:]):
            poisoned.fill_(-7)
        graph.replay()
        expected = decide(decision.q.cpu(), threshold, [capacity, count])
        assert torch.equal(decision.keep().cpu().long(), expected) and expected.shape[1] == capacity
        one.check(expected.cuda())


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [1, 2, 19, 128, 129, 150, 1000])
@pytest.mark.parametrize("count", [1, 33, 989])
def test_confidence(kernels: Kernels, dtype: torch.dtype, classes: int, count: int) -> None:
    logits = (5 * torch.randn(2, classes, count)).to(dtype)
    if count > 3:
        logits[0, classes // 2, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)
    there, out = logits.to(kernels.device), torch.full((2, count), -7.0, device=kernels.device)
    status = kernels.dovit_confidence(TYPES[dtype], place(there), place(out), 2, classes, count, stream(kernels))
    assert status == 0
    expected = logits.double().softmax(dim=1).amax(dim=1).float()
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-5, atol=0, equal_nan=True)
    assert torch.equal(confidence(logits).isnan(), out.cpu().isnan())


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [2, 19, 300])
@pytest.mark.parametrize(("size", "scale"), [((32, 64), 8), ((64, 96), 4), ((7, 5), 3), ((1, 1), 16), ((3, 300), 1)])
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_labels(
    kernels: Kernels, dtype: torch.dtype, classes: int, size: tuple[int, int], scale: int, kind: str
) -> None:
    if kernels.device == "cpu" and (size == (64, 96) or (classes == 300 and dtype != torch.float16)):
        pytest.skip(SLOW)
    shape = size if kind == "random" else (3, 4)
    logits = F.interpolate(torch.randn(2, classes, *shape), size=size, mode="bicubic").to(dtype).to(kernels.device)
    labels = torch.full(
        (2, size[0] * scale, size[1] * scale),
        77,
        dtype=torch.uint8 if classes <= 256 else torch.int16,
        device=kernels.device,
    )
    status = kernels.dovit_labels(TYPES[dtype], place(logits), place(labels), 2, classes, *size, scale, stream(kernels))
    assert status == 0
    assert_largest(labels, logits)


def assert_largest(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Each label [B, H, W] is of a class whose logit [B, C, h, w] is the largest there."""
    wide = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear")
    chosen = wide.gather(1, labels.long()[:, None])[:, 0]
    assert float((wide.amax(dim=1) - chosen).max()) < 1e-5


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [2, 19, 300])
@pytest.mark.parametrize(
    ("size", "wanted"), [((7, 5), (40, 300)), ((32, 64), (9, 131)), ((12, 20), (48, 80)), ((1, 1), (3, 2))]
)
def test_resized_labels(
    kernels: Kernels, dtype: torch.dtype, classes: int, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """Larger, smaller, and by a whole number; nothing is written beyond the labels."""
    logits = torch.randn(2, classes, *size).to(dtype).to(kernels.device)
    count = 2 * wanted[0] * wanted[1]
    made = torch.full((count + 64,), 77, dtype=torch.uint8 if classes <= 256 else torch.int16, device=kernels.device)
    status = kernels.dovit_resized_labels(
        TYPES[dtype], place(logits), place(made), 2, classes, *size, *wanted, stream(kernels)
    )
    assert status == 0 and bool((made[count:] == 77).all())
    assert_largest(made[:count].view(2, *wanted), logits)
