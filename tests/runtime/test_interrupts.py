"""An interrupt ends a command, whatever a library does with the exception."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from dovit.runtime.errors import DovitError
from dovit.runtime.interrupts import Interrupted, record_interrupts


def interrupted(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_an_interrupt_that_a_library_turns_into_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), record_interrupts():
        try:
            interrupted()
        except KeyboardInterrupt:
            raise RuntimeError("tracing failed") from None
    with (
        pytest.raises(KeyboardInterrupt),
        record_interrupts() as received,
        suppress(KeyboardInterrupt),
    ):  # and it goes on
        interrupted()
    assert received == [signal.SIGINT]


def test_errors_without_an_interrupt_stay() -> None:
    with pytest.raises(DovitError, match="mine"), record_interrupts():
        raise DovitError("mine")
    with pytest.raises(Interrupted, match="saved"), record_interrupts():
        try:
            interrupted()
        except KeyboardInterrupt:
            raise Interrupted("interrupted; saved", signal.SIGINT) from None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), record_interrupts(all_signals=True) as received:
        interrupted(number)
    assert received == [number] and signal.getsignal(number) is before
    signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with record_interrupts(all_signals=True) as received:
            interrupted(number)
        assert not received
    finally:
        signal.signal(number, before)


def test_in_other_threads_nothing_changes() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with record_interrupts(all_signals=True):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("number", "status", "sentence"),
    [
        (signal.SIGINT, 130, "interrupted;"),
        (signal.SIGTERM, 143, "ended by SIGTERM;"),
        (signal.SIGHUP, 129, "ended by SIGHUP;"),
    ],
)
def test_a_command_ends_with_the_status_of_shells(number: int, status: int, sentence: str) -> None:
    code = f"""
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from dovit.runtime.cli.app import run_command
def command() -> None:
    try:
        os.kill(os.getpid(), {int(number)})
    except KeyboardInterrupt:
        raise RuntimeError("a library's own")
run_command(command, "dovit-test")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == status and sentence in done.stderr and done.stderr.count("\n") == 1
