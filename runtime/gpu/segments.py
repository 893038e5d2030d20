"""A plan set's steps, grouped by the decision that settles their sizes.

Segment 0 runs on all tokens: the stem, and the first decision. Segment n runs on what decision n has left: its gather, its block,
the next decision; the last one ends with the reconstruction. What comes after runs on all positions again: the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dovit.runtime.bundle.plans import PlanStep

_SETTLED_BY = re.compile(r"(?:kept|length)(\d+)")


@dataclass(frozen=True)
class Segments:
    """`after[n]`: the steps whose sizes decision n settles, n = 0 for those that see all tokens; `decoder`: the last ones."""

    after: tuple[tuple[PlanStep, ...], ...]
    decoder: tuple[PlanStep, ...]


def settled_by(step: PlanStep) -> int:
    """The last decision that a step's input sizes depend on, 0 for none."""
    names = [size for spec in step.inputs for size in spec.shape if isinstance(size, str)]
    return max((int(found[1]) for name in names if (found := _SETTLED_BY.fullmatch(name))), default=0)


def cut_segments(steps: Sequence[PlanStep], decisions: int) -> Segments:
    """Group `steps`, which are in running order."""
    after: list[list[PlanStep]] = [[] for _ in range(decisions + 1)]
    decoder: list[PlanStep] = []
    reached = 0
    for step in steps:
        number = settled_by(step)
        if number < reached:
            decoder.append(step)
        else:
            reached = number
            after[number].append(step)
    return Segments(tuple(map(tuple, after)), tuple(decoder))
