"""Building CUDA graphs by capture, and what may be in them.

The body of a conditional node may hold kernels, copies, memsets, empty nodes, child graphs and conditional nodes. CUDA says no
more than "invalid" about the rest, and some of it only at launch, so what was captured is checked first.

A capture that was invalidated must not be ended by a GraphBuilder: cuda.core before 1.3 crashes then (NVIDIA/cuda-python #2834),
and ending an invalidated body and its parent crashes in the driver in any case (#2918). So `trial.py` captures every plan on
a plain stream first, and nothing that failed there comes into a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import Definition, GraphBuilder, Node, stream_address

ALLOWED = {"KernelNode", "MemcpyNode", "MemsetNode", "EmptyNode", "ChildGraphNode", "ConditionalNode", "SwitchNode"}


@contextmanager
def building(builder: GraphBuilder) -> Iterator[int]:
    """The stream to queue on while `builder` records. Ends the recording also where something is refused."""
    builder.begin_building()
    try:
        yield stream_address(builder.stream)
    except BaseException:
        _abandon(builder.end_building)
        raise
    builder.end_building()


def check_nodes(definition: Definition, what: str) -> None:
    """Raises DovitError where the graph holds what the body of a SWITCH node may not: memory allocations, event waits, calls
    of the host."""
    unsupported = sorted({type(node).__name__ for node in _nodes(definition)} - ALLOWED)
    if unsupported:
        raise DovitError(
            f"{what} cannot be part of a CUDA graph with SWITCH nodes: its capture holds {', '.join(unsupported)}; use the "
            "segmented mode (graph=False)"
        )


def _nodes(definition: Definition) -> Iterable[Node]:
    for node in definition.nodes():
        yield node
        child = getattr(node, "child_graph", None)
        if child is not None:
            yield from _nodes(child)


def _abandon(end: Callable[[], object]) -> None:
    """End a capture whose work has failed already: that error is raised, not the one that ending it may add."""
    try:
        end()
    except Exception:  # cuda.core's own type, for a capture that CUDA has invalidated
        return
