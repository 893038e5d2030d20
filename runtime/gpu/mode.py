"""Base classes of the modes, which are ways to launch a program: the host writes inputs, queues the pass, and reads results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dovit.runtime.chain import ChainResult
from dovit.runtime.gpu.device import Graph, Stream, stream_address
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.transfers import Transfers


class Mode(ABC):
    """One pass at a time, on a stream of its own."""

    name: str

    def __init__(self, program: LoadedProgram, transfers: Transfers) -> None:
        self._program, self._transfers = program, transfers
        self._stream = program.device.create_stream()

    @property
    def stream(self) -> Stream:
        """Where a pass is queued."""
        return self._stream

    @property
    def device_bytes(self) -> int:
        """Bytes that its program holds on the device."""
        return self._program.device_bytes

    def launch(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """Write and queue one pass over `images` [B, H, W, 3] uint8."""
        self.write(images, thresholds)
        self.queue()

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """Write the inputs; allocate and capture what is needed for images of this size."""
        self._transfers.write(images, thresholds)

    @abstractmethod
    def queue(self) -> None:
        """Queue the pass on the inputs that were written last."""

    def wait(self, *, logits: bool = False) -> ChainResult:
        """The result of the pass that was queued last. Without `logits` those stay on the device."""
        self._stream.sync()
        result = self._transfers.read()
        return replace(result, logits=self._program.read_logits()) if logits else result


class CapturedMode(Mode):
    """A mode whose passes begin with a graph that holds the copies to the device.

    Images of another size than the bundle's are copied and resized before that graph, and their labels are made after the last
    one. For them the first graph is captured again, without its copies, when the first such image comes.
    """

    _first: Graph
    _without_copies: Graph | None = None

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """See Mode."""
        super().write(images, thresholds)
        if self._transfers.resizes and self._without_copies is None:
            self._without_copies = self._capture_first(copies=False)

    def _launch_first(self) -> None:
        graph = self._first
        if self._transfers.resizes:
            assert self._without_copies is not None
            graph = self._without_copies
            self._transfers.enqueue_resized(stream_address(self._stream))
        graph.launch(self._stream)

    @abstractmethod
    def _capture_first(self, *, copies: bool) -> Graph: ...
