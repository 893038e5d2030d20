"""The program of a plan set, and its file in a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dovit.engines.planning.memory import lay_out
from dovit.engines.planning.operations import Operations, SegmentPlan
from dovit.runtime.bundle.manifest import FileEntry, Manifest
from dovit.runtime.bundle.plans import PlanSet, PlanStep
from dovit.runtime.bundle.program import INPUTS, ArenaTensor, Constant, DecisionTensors, Program, Segment

CONSTANTS = (Constant(tensor="stopped_count0", values=(0,)),)  # nothing has stopped at first


def plan_program(manifest: Manifest, steps: Sequence[PlanStep], batch: int) -> Program:
    """The program of `steps`, in running order, for `batch` images at a time. Raises DovitError where they cannot be run so."""
    made = Operations(manifest, steps, batch)
    decisions = tuple(
        DecisionTensors(
            capacity=f"capacity{number}",
            confidence=decision.confidence,
            index=decision.state.index,
            keep=decision.keep,
        )
        for number, decision in enumerate(manifest.decisions, start=1)
    )
    # small things first
    results = [decision.capacity for decision in decisions]
    results += [name for decision in decisions for name in (decision.confidence, decision.index, decision.keep)]
    permanent = (*INPUTS, *(constant.tensor for constant in CONSTANTS), "unused_count")
    operations = [planned for segment in made.segments for planned in segment.operations]
    layout = lay_out(made.tensors, operations, [*results, "labels"], permanent, ["logits"])
    return Program(
        batch=batch,
        tokens=manifest.tokens,
        arena_bytes=layout.size,
        result_bytes=layout.result_bytes,
        tensors=tuple(
            ArenaTensor(
                name=name,
                dtype=made.tensors[name].dtype,
                shape=made.tensors[name].shape,
                offset=offset,
                first=layout.lifetimes[name][0],
                last=layout.lifetimes[name][1],
            )
            for name, offset in sorted(layout.offsets.items(), key=lambda one: (one[1], one[0]))
        ),
        constants=CONSTANTS,
        decisions=decisions,
        segments=tuple(_segment(segment) for segment in made.segments),
    )


def _segment(planned: SegmentPlan) -> Segment:
    return Segment(
        operations=tuple(p.operation for p in planned.operations),
        if_none_kept=tuple(p.operation for p in planned.if_none_kept),
    )


def add_program(manifest: Manifest, plans: PlanSet, folder: Path) -> tuple[PlanSet, dict[str, FileEntry]]:
    """`plans`, which is complete but for it, with its program; and the entry of the program's file, which is written into the
    bundle in `folder`. Raises DovitError."""
    content = (plan_program(manifest, plans.steps, plans.batch).model_dump_json(indent=1) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()
    name = f"{plans.flavour}/program-{plans.precision}-{digest[:12]}.json"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    entry = FileEntry(sha256=digest, size=len(content))
    return plans.model_copy(update={"program": name}), {name: entry}
