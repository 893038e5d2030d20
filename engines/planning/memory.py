"""Where every tensor of a pass lies in the arena, the one block of device memory that a program works in.

Two tensors share memory if no operation needs both. What the host reads after a pass comes first, in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dovit.engines.planning.operations import Planned, Sized
from dovit.runtime.bundle.program import ALIGNMENT
from dovit.runtime.bundle.tensors import itemsize


@dataclass(frozen=True)
class Layout:
    """Offsets in a block of `size` bytes, by tensor; the results lie in its first `result_bytes`. Lifetimes are the first and
    the last operation that needs a tensor."""

    offsets: dict[str, int]
    lifetimes: dict[str, tuple[int, int]]
    size: int
    result_bytes: int


def lay_out(
    tensors: Mapping[str, Sized],
    operations: Sequence[Planned],
    results: Sequence[str],
    permanent: Iterable[str],
    read_at_the_end: Iterable[str],
) -> Layout:
    """Offsets for `tensors`, given the operations in their order. `results` and `permanent` tensors share memory with none."""
    sizes = {name: math.prod(sized.shape) * itemsize(sized.dtype) for name, sized in tensors.items()}
    lifetimes = _lifetimes(operations, (*results, *permanent))
    lifetimes |= {name: (lifetimes[name][0], len(operations)) for name in read_at_the_end}
    offsets: dict[str, int] = {}
    end = 0
    for name in results:
        offsets[name], end = end, aligned(end + sizes[name])
    result_bytes = end

    # regions in the order in which tensors are first needed, the largest first; each is free again after its last reader
    regions: list[tuple[int, int]] = []  # (bytes, busy until)
    region_of: dict[str, int] = {}
    for name, (first, last) in sorted(lifetimes.items(), key=lambda one: (one[1][0], -sizes[one[0]])):
        if name in offsets:
            continue
        size = sizes[name]
        free = [k for k, (_, until) in enumerate(regions) if until < first]
        # the one that has to grow least, and of those the one that fits best
        chosen = min(
            free, key=lambda k: (max(size - regions[k][0], 0), abs(regions[k][0] - size)), default=len(regions)
        )
        if chosen == len(regions):
            regions.append((0, 0))
        regions[chosen] = (max(regions[chosen][0], size), last)
        region_of[name] = chosen
    starts = []
    for size, _ in regions:
        starts.append(end)
        end = aligned(end + size)
    offsets |= {name: starts[region] for name, region in region_of.items()}
    return Layout(offsets, lifetimes, end, result_bytes)


def _lifetimes(operations: Sequence[Planned], permanent: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Permanent tensors live throughout: the host reads or writes them, or they are constants of all passes."""
    lifetimes = dict.fromkeys(permanent, (0, len(operations)))
    for number, planned in enumerate(operations):
        for name in (*planned.reads, *planned.writes):
            first, last = lifetimes.get(name, (number, number))
            lifetimes[name] = (min(first, number), max(last, number))
    return lifetimes


def aligned(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT
