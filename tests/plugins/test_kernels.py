"""The kernels and their launchers against the definition in torch: fresh inputs, poisoned outputs.

On a GPU, and everywhere on an emulated one (emulator/emulator.h), where fibres run the same sources: fewer cases, for those
are slow.
"""

import os
import shutil
import subprocess
from itertools import permutations
from pathlib import Path

import pytest
import torch
from emulate import HERE, compile_kernels, kernel_sources
from kernel_launches import (
    SLOW,
    TYPES,
    Decision,
    Kernels,
    Pass,
    both,
    ints,
    on_a_gpu,
    place,
    slots_of,
    some_state,
    stream,
)
from shared import compiled
from torch import Tensor

from dovit.export.model.token_pass import decide

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
