"""Whether each plan can be captured, and into what: tried on a plain stream, before any graph is built.

A capture that fails invalidates the graph that it belongs to, and ending an invalidated capture of a conditional body crashes in
the driver (capture.py). A capture that stands alone can fail without harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import cuda_errors
from dovit.runtime.gpu.program import LoadedProgram, SizedPlan

# what CUDA allows in the body of a conditional node, as CUgraphNodeType names it
IN_A_BODY = {"KERNEL", "MEMCPY", "MEMSET", "EMPTY", "GRAPH", "CONDITIONAL"}


@dataclass(frozen=True)
class Obstacle:
    """Why a plan cannot be part of a graph with SWITCH nodes. `invalidates`: nor of any other graph."""

    plan: SizedPlan
    reason: str
    invalidates: bool

    def __str__(self) -> str:
        return f"{self.plan.operation.name} with {self.plan.tokens} tokens {self.reason}"


def find_obstacles(program: LoadedProgram) -> list[Obstacle]:
    """Capture every plan of a warmed-up program at every capacity, each by itself. The stream has to be idle."""
    found = []
    for plan in program.sized_plans():
        reason = program.why_not_capturable(plan)
        if reason is not None:
            found.append(Obstacle(plan, f"cannot be captured: {reason}", True))
            continue
        try:
            with cuda_errors("the capture failed"):
                kinds = program.captured_kinds(plan)
        except DovitError as error:
            found.append(Obstacle(plan, f"cannot be captured: {error}", True))
            continue
        unsupported = sorted({*kinds} - IN_A_BODY)
        if unsupported:
            names = ", ".join(f"CU_GRAPH_NODE_TYPE_{kind}" for kind in unsupported)
            found.append(Obstacle(plan, f"cannot be in the body of a SWITCH node: its capture holds {names}", False))
    return found
