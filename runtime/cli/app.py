"""What all commands have in common: an error is one line, and the exit status says whose it is."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from dovit.runtime.errors import DovitError
from dovit.runtime.interrupts import noted_interrupts

INTERRUPTED = 130  # as shells report a command that Ctrl-C ended

# What typer raises for a wrong command line: click's exception, or in newer releases that of the click inside typer,
# where click itself need not be installed. The base class of a public exception is the right one in both.
_ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def run_command(command: Callable[..., Any], name: str, *, epilog: str = "") -> NoReturn:
    """Run a typer command and exit: 0; 1 for a failure, 2 for a usage error, each with one line; 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a file's name, ξ or → must not stop a command in a plain C locale
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(epilog=epilog, context_settings={"help_option_names": ["-h", "--help"]})(command)
    signals: list[int] = []
    try:
        with noted_interrupts(all_signals=True) as signals:
            status = app(
                prog_name=name, standalone_mode=False
            )  # what the command returned, or the status of a typer.Exit
    except DovitError as error:
        _end(name, str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except _ClickException as error:
        _end(name, f"{error.format_message().rstrip('.')}; see {name} --help", 2)
    except BrokenPipeError:
        # the reader went away (`| head`): Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _end(name, "not enough memory", 1)
    except Exception as error:
        if os.environ.get("DOVIT_DEBUG"):
            raise
        what = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        _end(name, f"internal error: {type(error).__name__}: {what}; set DOVIT_DEBUG=1 for the traceback", 1)
    if status == INTERRUPTED:  # newer typers turn a KeyboardInterrupt into this status, older ones into an Abort
        number = signals[-1] if signals else signal.SIGINT
        what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        _end(name, f"{what}; nothing half-written is left", 128 + number)
    sys.exit(status if isinstance(status, int) else 0)


def _end(name: str, sentence: str, status: int) -> NoReturn:
    print(f"{name}: error: {sentence}", file=sys.stderr)
    sys.exit(status)
