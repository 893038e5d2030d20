"""The plan of the memory, and the segments of the steps, which it follows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_gpu import (
    FakeDevice,
)
from lowered import KINDS, Maker

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.memory import plan_memory, shared_places, slots_name, staying_name, tensor_bytes
from dovit.runtime.gpu.segments import cut_segments


def test_too_little_memory_is_said_before_anything_is_allocated(make: Maker) -> None:
    device = FakeDevice(free_bytes=1 << 10)
    with pytest.raises(DovitError, match=r"tensorrt-rtx fp32 plans need \d+ MiB on fake GPU, of which 0 MiB are free"):
        make().program(device)
    assert not device.allocated


@pytest.mark.parametrize(("decoder", "head", "prefix"), KINDS)
def test_memory_is_shared_only_by_what_is_never_needed_at_once(
    make: Maker, decoder: str, head: str, prefix: int
) -> None:
    """Found anew here from each step's inputs and outputs."""
    made = make(decoder, head, prefix)
    steps, manifest = made.plans.steps, made.manifest
    plan = plan_memory(manifest, steps, 1, 64)
    sizes, owner = tensor_bytes(manifest, steps, 1), shared_places(manifest, steps)
    lives: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for spec in (*step.inputs, *step.outputs):
            name = "thresholds" if spec.name.startswith("threshold") else owner.get(spec.name, spec.name)
            lives[name] = (lives.get(name, (number, number))[0], number)
    for number, decision in enumerate(manifest.decisions, start=1):  # what no step names
        [made_by] = [n for n, step in enumerate(steps) if decision.keep in [spec.name for spec in step.outputs]]
        read_by = [n for n, step in enumerate(steps) if decision.keep in [spec.name for spec in step.inputs]]
        lives[slots_name(number)] = (made_by, max(read_by))
        lives[staying_name(number)] = (made_by, made_by)
    for name in lives:
        assert plan.offsets[name] >= 0 and plan.offsets[name] + sizes[name] <= plan.offsets["scratch"] <= plan.size
    results = {"labels", *(n for d in manifest.decisions for n in (d.confidence, d.state.index, d.keep))}
    for one in lives:
        for other in lives:
            if one >= other:
                continue
            apart = (
                plan.offsets[one] + sizes[one] <= plan.offsets[other]
                or plan.offsets[other] + sizes[other] <= plan.offsets[one]
            )
            meet = max(lives[one][0], lives[other][0]) <= min(lives[one][1], lives[other][1])
            assert apart or not (meet or {one, other} & results), (one, other)
    assert plan.size < sum(sizes.values())


def test_segments_of_every_kind(make: Maker) -> None:
    made = make("setr-mla", "fcn", 2)
    segments = cut_segments(made.plans.steps, 2)
    kinds: Sequence[Sequence[str]] = [[step.kind for step in steps] for steps in segments.after]
    assert [steps[-1] for steps in kinds] == ["decide", "decide", "reconstruct"]
    assert [steps[0] for steps in kinds] == ["plan", "gather", "gather"]
    assert [step.name for step in segments.decoder] == ["decoder", "labels"]
    assert [s for steps in (*segments.after, segments.decoder) for s in steps] == list(made.plans.steps)
