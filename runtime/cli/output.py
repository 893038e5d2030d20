"""Output of commands: tables and lines on stdout, progress on stderr, for terminals and for pipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table

from dovit.runtime.errors import printable
from dovit.runtime.progress import Progress

T = TypeVar("T")
UNLIMITED = 100_000  # columns of a pipe or a file: nothing there wraps a line
COLUMN_GAP = 2  # columns of the terminal between two of a table
TEXT_COLUMNS = 12  # to which a table's text may be narrowed, within words where these are longer
LINE_EVERY = 10.0  # seconds between two plain lines about one stage


def output_console() -> Console:
    """A console on stdout: with the terminal's width and colours, or plain text without line breaks in a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=UNLIMITED)


def error_console() -> Console:
    """A console on stderr, `is_interactive` where a progress bar can be drawn over and over. In a pipe or a file it writes plain
    text: FORCE_COLOR and TTY_COMPATIBLE make rich take these for terminals, and lines would be drawn and cleared in them."""
    wanted = None if sys.stderr.isatty() else False  # None: as TERM and rich's variables have it
    return Console(stderr=True, force_terminal=wanted, force_interactive=wanted)


def progress_bar(
    console: Console, *columns: ProgressColumn, transient: bool = True, shown: bool = True
) -> RichProgress:
    """A bar on `console`, an `error_console`, if that is interactive.

    rich would send what is printed meanwhile to stderr, above the bar, and break it at the terminal's width: right for people who
    see both in one terminal, and wrong where stdout is a file or a pipe."""
    disable = not (shown and console.is_interactive)
    return RichProgress(
        *columns, console=console, transient=transient, disable=disable, redirect_stdout=sys.stdout.isatty()
    )


def escaped(text: str) -> str:
    """`text` as a table or a line with markup shows it: for names and whatever else comes out of a file."""
    return escape(printable(text))


def new_table(*headings: str, left: Sequence[int] = (0,), text: Sequence[int] | None = None) -> Table:
    """A table whose cells are never cut short: text that is too long goes on in the next line, and numbers are not broken.
    Columns `text`, by default those that are `left`-justified, hold text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="left" if number in left else "right",
            overflow="fold",
            no_wrap=number not in (left if text is None else text),
            vertical="bottom",
        )
    return table


def print_table(console: Console, title: str, table: Table, note: str = "") -> None:
    """The table under its title, and an empty line. Where a terminal is too narrow for it, a line for each cell."""
    print_line(console, title, style="bold")
    gaps = COLUMN_GAP * (len(table.columns) - 1)
    if sum(_least_width(console, column) for column in table.columns) + gaps <= console.width:
        console.print(table)
    else:
        names = [str(column.header).replace("-\n", "-").replace("\n", " ") for column in table.columns]
        for first, *others in zip(*(column.cells for column in table.columns), strict=True):
            console.print(f"{names[0]}: {first}" if names[0] else first, style="bold", highlight=False)
            for name, cell in zip(names[1:], others, strict=True):
                if cell:
                    console.print(f"  {name}: {cell}" if name else f"  {cell}", highlight=False)
    if note:
        print_line(console, note)
    console.print()


def _least_width(console: Console, column: Column) -> int:
    """The columns of the terminal that a column needs: for numbers as many as the widest, for text its longest word, or less."""
    unlimited = console.options.update_width(UNLIMITED)
    sizes = [Measurement.get(console, unlimited, cell) for cell in (column.header, *column.cells)]
    if column.no_wrap:
        return max(size.maximum for size in sizes)
    return min(TEXT_COLUMNS, max(size.minimum for size in sizes))


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """`text` as it is, however long, without terminal codes."""
    text = "\n".join(map(printable, text.split("\n")))
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def stage_progress() -> Iterator[Progress]:
    """Shows progress on stderr: a bar on a terminal, otherwise a line when a stage begins and every ten seconds.

    A stage is what comes before the first colon or comma of the text: `building 5 plans: stem, block2`.
    """
    console = error_console()
    if not console.is_interactive:
        yield _StageLines(console)
        return
    columns = SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn()
    with progress_bar(console, *columns) as bar:
        task = bar.add_task("starting", total=None)

        def say(text: str, fraction: float | None = None) -> None:
            bar.update(task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield say


class _StageLines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage: str | None = None
        self._last = 0.0  # when the last line was written

    def __call__(self, text: str, fraction: float | None = None) -> None:
        stage = text.replace(":", ",").split(",")[0].strip()
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._last = stage, now
            print_line(self._console, stage)
        elif fraction is not None and now - self._last >= LINE_EVERY:
            self._last = now
            print_line(self._console, f"{text}, {fraction:.0%}")


@contextmanager
def progress_counter() -> Iterator[Counter]:
    """Yields a Counter, which shows the progress of a loop."""
    console = error_console()
    with progress_bar(console) as bar:
        yield Counter(console, bar)


class Counter:
    """Shows the progress of a loop on stderr: a bar on a terminal, otherwise a line at the start and every ten seconds."""

    def __init__(self, console: Console, bar: RichProgress) -> None:
        self._console, self._bar = console, bar

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The items, one after the other."""
        plain = not self._console.is_interactive
        task = self._bar.add_task(what, total=total)
        last = time.monotonic()
        if plain:
            print_line(self._console, f"{what}: {total} image{'s' * (total != 1)}")
        for number, item in enumerate(items, start=1):
            yield item
            self._bar.advance(task)
            if plain and number < total and time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                print_line(self._console, f"{what}: {number} of {total}")
        self._bar.remove_task(task)
