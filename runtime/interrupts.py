"""Signal handling: SIGINT (Ctrl-C), SIGTERM and SIGHUP raise KeyboardInterrupt, so that temporary files are removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dovit.runtime.errors import DovitError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(DovitError):
    """A signal ended the work, and `sentence` says what state it left. The exit status is 128 + signal number, as in shells."""

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.exit_status = 128 + number


@contextmanager
def record_interrupts(*, all_signals: bool = False) -> Iterator[list[int]]:
    """A signal during the block ends it with KeyboardInterrupt, even where a library called in it converts the interrupt to
    an exception of its own or ignores it. Only an `Interrupted` is passed on as it is.

    Yields the list of signals received. With `all_signals`, SIGTERM and SIGHUP interrupt as Ctrl-C does, unless the
    process ignores them. Outside the main thread, which alone gets signals, this does nothing.
    """
    received: list[int] = []
    with signal_handlers(received.append, all_signals=all_signals):
        try:
            yield received
        except Interrupted:
            raise
        except Exception:
            if received:
                raise KeyboardInterrupt from None
            raise
        if received:
            raise KeyboardInterrupt


@contextmanager
def signal_handlers(act: Callable[[int], Any], *, all_signals: bool, interrupt: bool = True) -> Iterator[None]:
    """`act` is called with the number of each signal, which then interrupts as before, or with `interrupt=False` does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        act(number)
        if interrupt:
            earlier = before[signal.Signals(number)]
            if callable(earlier):
                earlier(number, frame)
            raise KeyboardInterrupt

    taken = [n for n, old in before.items() if callable(old) or (all_signals and old is signal.SIG_DFL)]
    try:
        for number in taken:
            signal.signal(number, handle)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
