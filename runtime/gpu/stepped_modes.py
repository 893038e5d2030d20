"""The chain with the host in the loop: it reads how many tokens are kept after each decision, and queues what comes next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from dovit.runtime.gpu.capture import building
from dovit.runtime.gpu.device import Graph, Stream, address, stream_address
from dovit.runtime.gpu.mode import CapturedMode, Mode
from dovit.runtime.gpu.program import Choice, LoadedProgram
from dovit.runtime.gpu.transfers import Transfers


class _KeptCount:
    """How many tokens a decision kept, copied to pinned memory."""

    def __init__(self, program: LoadedProgram) -> None:
        self._program = program
        self._count = program.device.pinned(4)

    def enqueue(self, decision: int, stream: int) -> None:
        """Queue the copy of what decision number `decision`, from 0, kept."""
        source = self._program.address(self._program.program.decisions[decision].capacity)
        self._program.device.copy(address(self._count), source, 4, stream)

    def read(self) -> int:
        return int(self._count.view(np.int32)[0])


class _Uncaptured:
    """In place of a graph: what it would hold is queued anew at every launch."""

    def __init__(self, queue: Callable[[int], None]) -> None:
        self._queue = queue

    def launch(self, stream: Stream) -> None:
        self._queue(stream_address(stream))


class SegmentedMode(CapturedMode):
    """A graph for each segment and capacity: one launch and one read a decision. For drivers without SWITCH nodes, and for plans
    that cannot be in the body of one.

    `uncapturable`: segments, by their number and kept tokens, with a plan that cannot be captured at all; they are queued
    operation by operation.
    """

    name = "segmented"

    def __init__(
        self, program: LoadedProgram, transfers: Transfers, uncapturable: Collection[tuple[int, int]] = ()
    ) -> None:
        super().__init__(program, transfers)
        self._kept = _KeptCount(program)
        self._uncapturable = frozenset(uncapturable)
        self._first = self._capture_first(copies=True)
        between = range(1, program.last_segment)
        self._graphs = {(n, kept): self._capture(n, kept) for n in between for kept in program.manifest.capacities}
        self._last = self._capture(program.last_segment, program.program.tokens)

    def queue(self) -> None:
        """Run the pass up to its last decision, and queue the rest."""
        self._launch_first()
        for number in range(1, self._program.last_segment):
            self._stream.sync()
            kept = self._kept.read()
            self._graphs[number, kept].launch(self._stream)
            if kept == 0:
                break
        self._last.launch(self._stream)
        self._transfers.enqueue_resized_labels(stream_address(self._stream))

    def _capture_first(self, *, copies: bool) -> Graph:
        return self._capture(0, self._program.program.tokens, copies=copies)

    def _capture(self, number: int, kept: int, *, copies: bool = False) -> Graph:
        program = self._program

        def queue(stream: int) -> None:
            if copies:
                self._transfers.enqueue_inputs(stream)
            program.enqueue(number, kept, stream)
            if number == program.last_segment:
                self._transfers.enqueue_results(stream)
            elif number < len(program.program.decisions) and kept:
                self._kept.enqueue(number, stream)

        if (number, kept) in self._uncapturable:
            return _Uncaptured(queue)
        builder = program.device.create_graph_builder()
        with building(builder) as stream:
            queue(stream)
        return builder.complete()


class ExactMode(Mode):
    """No graph and no filling up: the kept sets are exactly those of ξ. For checks of parity.

    With `counts`, each decision keeps that many tokens of every image instead, those of lowest confidence.
    """

    name = "exact"
    counts: Sequence[int] | None = None
    bucketed = False  # fill up to the bundle's capacities all the same, to time what is captured elsewhere
    before_segment: Callable[[int], None] | None = None  # queues something on the stream before each segment

    def __init__(self, program: LoadedProgram, transfers: Transfers) -> None:
        super().__init__(program, transfers)
        self._kept = _KeptCount(program)
        self._fixed = program.device.pinned(8)

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """See Mode."""
        # ξ = 0 stops every token, and the fixed capacity is filled up with those of lowest confidence
        super().write(images, thresholds if self.counts is None else [0.0] * len(self.counts))

    def queue(self) -> None:
        """Run the pass up to its last decision, and queue the rest."""
        program, counts = self._program, self.counts
        stream = stream_address(self._stream)
        self._begin_segment(stream)
        if self._transfers.resizes:
            self._transfers.enqueue_resized(stream)
        else:
            self._transfers.enqueue_inputs(stream)
        tokens, last = program.program.tokens, program.last_segment
        kept = tokens
        choice: Choice = "fixed" if counts is not None else "bucketed" if self.bucketed else "exact"
        for number in range(last):
            if number:
                self._kept.enqueue(number - 1, stream)
                self._stream.sync()
                kept = self._kept.read()
                self._begin_segment(stream)
            if counts is not None and number < len(counts):
                self._fixed.view(np.int64)[0] = counts[number]
                program.device.copy(program.address("fixed_capacity"), address(self._fixed), 8, stream)
            program.enqueue(number, kept, stream, choice=choice)
            if kept == 0:
                break
        program.enqueue(last, tokens, stream, choice=choice)
        self._transfers.enqueue_results(stream)
        self._transfers.enqueue_resized_labels(stream)

    def _begin_segment(self, stream: int) -> None:
        if self.before_segment is not None:
            self.before_segment(stream)
