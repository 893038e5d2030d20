"""Ends a training run on a signal after its state is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from dovit.runtime.interrupts import Interrupted, signal_handlers

HOW_TO_GO_ON = "go on with the same command and --resume"


class GracefulStop:
    """A context manager in which a first SIGINT, SIGTERM or SIGHUP only sets `requested`; a second one raises KeyboardInterrupt.

    Without `single_process`, where other processes would wait for this one, no signal raises: torchrun forwards every signal,
    some of them twice.
    """

    def __init__(self, *, single_process: bool) -> None:
        self._single_process = single_process
        self._received: list[int] = []
        self._interruptible = False
        self._handlers = ExitStack()

    @property
    def requested(self) -> bool:
        """Whether a signal was received."""
        return bool(self._received)

    def interrupted(self, what: str) -> Interrupted:
        """The exception to raise: `what` says when the run ended and where its state is."""
        number = self._received[-1] if self._received else 15  # another process got the signal
        return Interrupted(f"interrupted {what}; {HOW_TO_GO_ON}", number)

    @contextmanager
    def interruptible(self, left: str) -> Iterator[None]:
        """A block that the first signal interrupts, because it can be repeated. With `single_process` this raises Interrupted,
        whose message says what is `left` to do."""
        if self.requested and self._single_process:
            raise self.interrupted(f"before validation: {left}")
        self._interruptible = self._single_process
        try:
            yield
        except KeyboardInterrupt:
            raise self.interrupted(f"during validation: {left}") from None
        finally:
            self._interruptible = False

    def _note(self, number: int) -> None:
        self._received.append(number)
        if self._interruptible or (self._single_process and len(self._received) > 1):
            raise KeyboardInterrupt

    def __enter__(self) -> GracefulStop:
        self._handlers.enter_context(signal_handlers(self._note, all_signals=True, interrupt=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.close()
