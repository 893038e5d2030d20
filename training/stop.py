"""Ending a run on a signal so that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from dovit.runtime.interrupts import Interrupted, signal_handlers

HOW_TO_GO_ON = "go on with the same command and --resume"


class Stop:
    """A context manager in which SIGINT, SIGTERM and SIGHUP are noted and interrupt nothing; a second one does.

    Not `alone`, with other processes that would wait for this one, none does: torchrun passes every signal on, some twice.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._came: list[int] = []
        self._at_once = False
        self._handlers = ExitStack()

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return bool(self._came)

    def ended(self, what: str) -> Interrupted:
        """The exception that tells `what` is left of the run."""
        number = self._came[-1] if self._came else 15  # another process was told
        return Interrupted(f"interrupted {what}; {HOW_TO_GO_ON}", number)

    @contextmanager
    def at_once(self, left: str) -> Iterator[None]:
        """The first signal interrupts the block: what it does can be done again. Alone, that is an Interrupted that says
        what is `left`."""
        if self.asked and self._alone:
            raise self.ended(f"before validation: {left}")
        self._at_once = self._alone
        try:
            yield
        except KeyboardInterrupt:
            raise self.ended(f"during validation: {left}") from None
        finally:
            self._at_once = False

    def _note(self, number: int) -> None:
        self._came.append(number)
        if self._at_once or (self._alone and len(self._came) > 1):
            raise KeyboardInterrupt

    def __enter__(self) -> Stop:
        self._handlers.enter_context(signal_handlers(self._note, all_signals=True, interrupt=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.close()
