"""Where every tensor of a pass lies on the device: one block, planned from the order of the steps before anything is allocated.

Two tensors share memory if no step needs both. All positions' latest tokens, `full`, are one place that each gather changes, and
so are the sums of the stopped ones. What the caller wants to read afterwards has a place of its own, in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dovit.runtime.bundle.dimensions import full_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.tensors import TensorSpec

ALIGNMENT = 256  # bytes, as the CUDA allocator's own


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets in one block of `size` bytes, by tensor name; the results lie in its first `results` bytes."""

    offsets: dict[str, int]
    size: int
    results: int


def capacity_name(number: int) -> str:
    """The place of the capacity that decision `number` chose, int32."""
    return f"capacity{number}"


def slots_name(number: int) -> str:
    """The place of every token's slot after decision `number`, [B, M] int32."""
    return f"slots{number}"


def staying_name(number: int) -> str:
    """The place of how many tokens of each image stay by themselves at decision `number`, [B] int32."""
    return f"staying{number}"


ONLY_CAPACITY = "only_capacity"  # of a decision that is to keep a given number, int64
SPARE_COUNT = "spare_count"  # where a count goes that nobody asks for, int64
KEPT = (
    "image",
    "thresholds",
    "capacities",
    "stopped_count0",
    SPARE_COUNT,
    ONLY_CAPACITY,
)  # no step's, and never shared


def result_names(manifest: Manifest) -> list[str]:
    """What a caller reads after a pass, in the order in which it lies: small things first."""
    numbers = range(1, len(manifest.decisions) + 1)
    names = [capacity_name(number) for number in numbers]
    for decision in manifest.decisions:
        names += [decision.confidence, decision.state.index, decision.keep]
    return [*names, "labels"]


def plan_memory(manifest: Manifest, steps: Sequence[PlanStep], batch: int, scratch: int) -> MemoryPlan:
    """Plan for `batch` images; `scratch` bytes are what engines and kernels need besides, one region for all."""
    sizes = tensor_bytes(manifest, steps, batch)
    owner = shared_places(manifest, steps)
    results = result_names(manifest)
    offsets: dict[str, int] = {}
    end = 0
    for name in results:
        offsets[name] = end
        end = align(end + sizes[name])
    result_bytes = end

    last = {
        name: len(steps)
        for name in ("logits", "image", "thresholds", "capacities", "stopped_count0", SPARE_COUNT, ONLY_CAPACITY)
    }
    for number, step in enumerate(steps):
        for spec in (*step.inputs, *step.outputs):
            place = owner.get(spec.name, spec.name)
            last[place] = max(last.get(place, 0), number)
        if step.kind == "decide":  # its gather reads the slots, not the list
            decided = _number(manifest, step)
            gathers = [
                n for n, s in enumerate(steps) if s.kind == "gather" and s.inputs[5].name == step.outputs[0].name
            ]
            last[slots_name(decided)] = max(gathers, default=number)
            last[staying_name(decided)] = number

    # regions in the order in which tensors are first written; each is free again after its last reader
    regions: list[tuple[int, int]] = []  # (bytes, busy until)
    region_of: dict[str, int] = {}

    def take(name: str, now: int) -> None:
        size = sizes[name]
        free = [k for k, (_, until) in enumerate(regions) if until < now]
        chosen = min(
            free, key=lambda k: (max(size - regions[k][0], 0), abs(regions[k][0] - size)), default=len(regions)
        )
        if chosen == len(regions):
            regions.append((0, 0))
        regions[chosen] = (max(regions[chosen][0], size), last[name])
        region_of[name] = chosen

    for name in KEPT:
        take(name, -1)
    for number, step in enumerate(steps):
        made = [spec.name for spec in step.outputs]
        if step.kind == "decide":
            made += [slots_name(_number(manifest, step)), staying_name(_number(manifest, step))]
        for name in made:
            place = owner.get(name, name)
            if place not in offsets and place not in region_of:
                take(place, number)
    starts = []
    for size, _ in regions:
        starts.append(end)
        end = align(end + size)
    offsets |= {name: starts[region] for name, region in region_of.items()}
    offsets |= {name: offsets[place] for name, place in owner.items()}
    offsets["scratch"] = end
    return MemoryPlan(offsets, align(end + scratch), result_bytes)


def shared_places(manifest: Manifest, steps: Sequence[PlanStep]) -> dict[str, str]:
    """Tensors that kernels change in place: the name of the one that their memory began as."""
    owner: dict[str, str] = {}

    def same(output: TensorSpec, source: TensorSpec) -> None:
        owner[output.name] = owner.get(source.name, source.name)

    for step in steps:
        if step.kind == "gather":
            same(step.outputs[2], step.inputs[2])
            if len(step.outputs) > 3:  # nobody asks for the sums after the last decision
                same(step.outputs[3], step.inputs[3])
        elif step.kind == "reconstruct" and step.outputs[0].name not in manifest.taps:
            # the kept tokens' latest values are what `full` says of them from here on, so nobody minds
            same(step.outputs[0], step.inputs[0])
    return owner


def tensor_bytes(manifest: Manifest, steps: Sequence[PlanStep], batch: int) -> dict[str, int]:
    """Bytes of every tensor of a pass at its largest, all tokens kept."""
    dims = full_dims(manifest, batch) | {"capacities": len(manifest.capacities)}
    sizes = {}
    for step in steps:
        for spec in (*step.inputs, *step.outputs):
            sizes[spec.name] = int(np.prod(spec.resolve(dims), dtype=np.int64)) * spec.itemsize
    height, width = manifest.image_size
    sizes |= {
        "image": batch * height * width * 3,
        "thresholds": 4 * max(len(manifest.decisions), 1),
        "capacities": 8 * max(len(manifest.capacities), 1),
        "stopped_count0": 8,
        SPARE_COUNT: 8,
        ONLY_CAPACITY: 8,
    }
    for number in range(1, len(manifest.decisions) + 1):
        sizes |= {
            capacity_name(number): 4,
            slots_name(number): 4 * batch * manifest.tokens,
            staying_name(number): 4 * batch,
        }
    return sizes


def align(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _number(manifest: Manifest, step: PlanStep) -> int:
    """Which decision, from 1, a decide step is."""
    return 1 + [decision.keep for decision in manifest.decisions].index(step.outputs[0].name)
