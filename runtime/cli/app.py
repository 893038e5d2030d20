"""Entry point of all commands: errors are printed as one line, and the exit status tells failures (1) from usage errors (2)."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import typer

from dovit.runtime.errors import DovitError, first_line, printable, shortened
from dovit.runtime.interrupts import record_interrupts

_WRITING_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)
INTERRUPTED = 130  # what newer typers make of a KeyboardInterrupt, whichever signal it came from

# What typer raises for a wrong command line: click's exception, or in newer releases that of the click inside typer,
# where click itself need not be installed. The base class of a public exception is the right one in both.
_ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def run_command(command: Callable[..., Any], name: str, *, epilog: str = "") -> NoReturn:
    """Run a typer command and exit: 0, or with one line 1 for a failure, 2 for a usage error, 128 + the number of the signal that
    ended it."""
    _open_streams()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(epilog=epilog, context_settings={"help_option_names": ["-h", "--help"]})(command)
    signals: list[int] = []
    try:
        with record_interrupts(all_signals=True) as signals:
            status = app(
                prog_name=name, standalone_mode=False
            )  # what the command returned, or the status of a typer.Exit
    except DovitError as error:
        if error.__cause__ is not None:
            _debug(error)
        _exit_with_error(name, str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.Exit as end:
        status = end.exit_code
    except _ClickException as error:
        sentence = (
            error.format_message().rstrip(".").replace("Value error, ", "")
        )  # pydantic's, which checks the options
        _exit_with_error(name, f"{sentence}; see {name} --help", 2)
    except BrokenPipeError:
        _redirect_to_devnull(sys.stdout)  # the reader went away (`| head`)
        sys.exit(1)
    except MemoryError:
        _exit_with_error(name, "not enough memory", 1)
    except OSError as error:  # not handled where it was raised
        _debug(error)
        _exit_with_error(name, _describe_os_error(error), 1)
    except Exception as error:
        if os.environ.get("DOVIT_DEBUG"):
            raise
        what = f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__
        _exit_with_error(name, f"internal error: {what}; set DOVIT_DEBUG=1 for the traceback", 1)
    if status == INTERRUPTED:  # older typers raise an Abort instead
        exit_interrupted(name, signals[-1] if signals else signal.SIGINT)
    try:
        sys.stdout.flush()  # now: when Python exits, a full disk could not be reported any more
    except BrokenPipeError:
        _redirect_to_devnull(sys.stdout)
        sys.exit(1)
    except OSError as error:
        _exit_with_error(name, _describe_os_error(error), 1)
    sys.exit(status if isinstance(status, int) else 0)


def exit_interrupted(name: str, number: int = signal.SIGINT) -> NoReturn:
    """Exit as a command does that a signal ended. `number`: the signal's."""
    _open_streams()  # for an interrupt before run_command
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    _exit_with_error(name, f"{what}; nothing half-written is left", 128 + number)


def _open_streams() -> None:
    """Make stdout and stderr usable: any character can be printed, and a closed one (`>&-`) takes everything and keeps
    nothing, or the next file to be opened would get its descriptor, and what libraries print."""
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open for as long as we run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a file's name, ξ or → must not stop a command in a plain C locale


def _exit_with_error(name: str, sentence: str, status: int) -> NoReturn:
    """Print one line on stderr, if that is possible, and exit with `status`."""
    try:
        print(f"{name}: error: {shortened(printable(sentence))}", file=sys.stderr, flush=True)
    except OSError:  # stderr is closed or full: only the exit status is left
        _redirect_to_devnull(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _redirect_to_devnull(sys.stdout)
    sys.exit(status)


def _describe_os_error(error: OSError) -> str:
    """A sentence for a failed system call."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}; give another file or folder"
    if error.errno in _WRITING_FAILED:
        _redirect_to_devnull(sys.stdout)
        return f"the output cannot be written: {reason}; free some space, or send it elsewhere"
    return f"reading or writing failed: {reason}"


def _redirect_to_devnull(stream: TextIO) -> None:
    """Send what is still buffered in `stream` to /dev/null: flushing it at exit would raise again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _debug(error: Exception) -> None:
    if os.environ.get("DOVIT_DEBUG"):
        traceback.print_exception(error)
