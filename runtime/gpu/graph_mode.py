"""The whole image as one CUDA graph: one launch, without the host in between.

stem, decide 1 ─▶ SWITCH 1 ─▶ SWITCH 2 ─▶ … ─▶ decoder
                  │ a body for each capacity: gather, block 2 at that size, decide 2 (sets SWITCH 2)
"""

from __future__ import annotations

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.capture import building, check_nodes
from dovit.runtime.gpu.device import Graph, GraphBuilder, condition_handle, stream_address
from dovit.runtime.gpu.mode import CapturedMode
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.transfers import Transfers


class GraphMode(CapturedMode):
    """A program captured once, for the bundle's capacities. ξ is read from the device, so it may differ every time."""

    name = "graph"

    def __init__(self, program: LoadedProgram, transfers: Transfers) -> None:
        """Capture. Raises DovitError where the device cannot, or where a plan cannot be part of a graph."""
        if not program.device.can_switch:
            raise DovitError(
                f"{program.device.name}: SWITCH nodes need CUDA 12.8 and a driver that has it; update the driver, or use the "
                "segmented mode (graph=False)"
            )
        super().__init__(program, transfers)
        self._first = self._capture_first(copies=True)

    def queue(self) -> None:
        """One launch."""
        self._launch_first()
        self._transfers.enqueue_resized_labels(stream_address(self._stream))

    def _capture_first(self, *, copies: bool) -> Graph:
        program = self._program
        builder = program.device.create_graph_builder()
        tokens, capacities = program.program.tokens, program.manifest.capacities
        with building(builder) as stream:
            # the default is no body's number: a switch whose decision was not made, since no token was left, runs nothing
            conditions = [builder.create_condition(default_value=len(capacities)) for _ in program.program.decisions]
            handles = [*(condition_handle(condition) for condition in conditions), 0]
            if copies:
                self._transfers.enqueue_inputs(stream)
            program.enqueue(0, tokens, stream, switch=handles[0])
            for number, condition in enumerate(conditions, start=1):
                bodies = builder.switch(condition, len(capacities))
                for body, kept in zip(bodies, capacities, strict=True):
                    self._capture_body(body, number, kept, handles[number])
            program.enqueue(program.last_segment, tokens, stream)
            self._transfers.enqueue_results(stream)
        return builder.complete()

    def _capture_body(self, body: GraphBuilder, number: int, kept: int, switch: int) -> None:
        with building(body) as stream:
            self._program.enqueue(number, kept, stream, switch=switch)
        check_nodes(body.graph_definition, f"block {number + 1} with {kept} tokens")
