"""A way to run a program: what the host writes, what it queues, and what it reads when that is over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from dovit.runtime.chain import ChainResult
from dovit.runtime.gpu.device import Stream
from dovit.runtime.gpu.inputs import Transfers
from dovit.runtime.gpu.program import Program


class Mode(ABC):
    """One pass at a time, on a stream of its own."""

    name: str

    def __init__(self, program: Program, transfers: Transfers) -> None:
        self._program, self._transfers = program, transfers
        self._stream = program.device.create_stream()

    @property
    def stream(self) -> Stream:
        """Where a pass is queued."""
        return self._stream

    def launch(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """Write and queue one pass over `images` [B, H, W, 3] uint8."""
        self.write(images, thresholds)
        self.queue()

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """The host's part of a pass."""
        self._transfers.write(images, thresholds)

    @abstractmethod
    def queue(self) -> None:
        """The rest of it, on what was written last."""

    def wait(self) -> ChainResult:
        """The result of the pass that was queued last."""
        self._stream.sync()
        return self._transfers.read()
