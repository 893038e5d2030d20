"""The chain with the host in the loop: it reads how many tokens are kept after each decision, and queues what comes next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from dovit.runtime.gpu.addresses import address, stream_address
from dovit.runtime.gpu.capture import building
from dovit.runtime.gpu.device import Graph, Stream
from dovit.runtime.gpu.inputs import Transfers
from dovit.runtime.gpu.memory import ONLY_CAPACITY, capacity_name
from dovit.runtime.gpu.mode import CapturedMode, Mode
from dovit.runtime.gpu.program import Choice, Program


class _Counter:
    """One pinned number: the count that a decision has left."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._count = program.device.pinned(4)

    def enqueue(self, number: int, stream: int) -> None:
        place = self._program.place(capacity_name(number))
        self._program.device.copy(address(self._count), place, 4, stream)

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

    def __init__(self, program: Program, transfers: Transfers, uncapturable: Collection[tuple[int, int]] = ()) -> None:
        super().__init__(program, transfers)
        self._counter = _Counter(program)
        self._uncapturable = frozenset(uncapturable)
        decisions, capacities = len(program.manifest.decisions), program.manifest.capacities
        self._first = self._capture_first(copies=True)
        self._graphs = {(n, kept): self._capture(n, kept) for n in range(1, decisions + 1) for kept in capacities}
        self._decoder = self._capture(decisions + 1, 0)

    def queue(self) -> None:
        """Run the pass up to its last decision, and queue the rest."""
        self._launch_first()
        for number in range(1, len(self._program.manifest.decisions) + 1):
            self._stream.sync()
            kept = self._counter.read()
            self._graphs[number, kept].launch(self._stream)
            if kept == 0:
                break
        self._decoder.launch(self._stream)
        self._transfers.enqueue_own_labels(stream_address(self._stream))

    def _capture_first(self, *, copies: bool) -> Graph:
        return self._capture(0, self._program.manifest.tokens, copies=copies)

    def _capture(self, number: int, kept: int, *, copies: bool = False) -> Graph:
        program, decisions = self._program, len(self._program.manifest.decisions)

        def queue(stream: int) -> None:
            if copies:
                self._transfers.enqueue_inputs(stream)
            if number > decisions:
                program.enqueue_decoder(stream)
                self._transfers.enqueue_results(stream)
            else:
                program.enqueue(number, kept, stream)
                if number < decisions and kept:
                    self._counter.enqueue(number + 1, stream)

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

    def __init__(self, program: Program, transfers: Transfers) -> None:
        super().__init__(program, transfers)
        self._counter = _Counter(program)
        self._only = program.device.pinned(8)

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """See Mode."""
        # ξ = 0 stops every token, and the only capacity is filled up with those of lowest confidence
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
        came, kept = program.manifest.tokens, program.manifest.tokens
        choice: Choice = "fixed" if counts is not None else "bucketed" if self.bucketed else "exact"
        for number in range(len(program.manifest.decisions) + 1):
            if number:
                self._counter.enqueue(number, stream)
                self._stream.sync()
                came, kept = kept, self._counter.read()
                self._begin_segment(stream)
            if counts is not None and number < len(counts):
                self._only.view(np.int64)[0] = counts[number]
                program.device.copy(program.place(ONLY_CAPACITY), address(self._only), 8, stream)
            program.enqueue(number, kept, stream, came=came, choice=choice)
            if kept == 0:
                break
        program.enqueue_decoder(stream)
        self._transfers.enqueue_results(stream)
        self._transfers.enqueue_own_labels(stream)

    def _begin_segment(self, stream: int) -> None:
        if self.before_segment is not None:
            self.before_segment(stream)
