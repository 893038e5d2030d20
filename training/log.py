"""The log of a run: a progress bar or plain lines on stderr, OUT/log.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dovit.runtime.cli.output import error_console, print_line, progress_bar
from dovit.runtime.errors import DovitError
from dovit.runtime.files import atomic_write, read_regular, unwritten

MAX_BYTES = 1 << 30
LOG_NAME = "log.jsonl"
SCORES = ("mIoU", "PA", "mPA")
Value = float | Sequence[float]


class Log:
    """A context manager. With `quiet`, as in all processes but the first, nothing is written."""

    def __init__(self, out: Path, steps: int, start: int, *, quiet: bool) -> None:
        self._quiet = quiet
        self._steps, self._start = steps, start
        self._path = out / LOG_NAME
        if not quiet:
            _drop_lines_from(self._path, start)
            self._board = _tensorboard(out, start)
            console = error_console()
            self._plain = not console.is_interactive
            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
            self._bar = progress_bar(console, *columns, transient=False)

    def __enter__(self) -> Log:
        if not self._quiet:
            self._file = self._path.open("a", encoding="utf-8")
            self._bar.start()
            self._began = time.monotonic()
            self._validated = 0.0  # seconds
            self._task = self._bar.add_task("", total=self._steps, completed=self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._quiet:
            self._bar.stop()
            try:
                self._file.close()  # writes again what could not be written before
                if self._board is not None:
                    self._board.close()
            except OSError as failure:
                if error is None:  # or it would hide that of the block
                    raise self._not_written(failure) from None
            if error is not None:
                self._remove_if_empty()

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Record the values of step `step`, counted from 0."""
        if self._quiet:
            return
        rounded = {name: _as_plain(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **rounded}) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._not_written(error) from None
        words = ", ".join(
            f"{name} {_short(value)}"
            for name, value in values.items()
            if name in ("loss", "kept", *SCORES) and value != []  # a dense model has no decisions
        )
        if words:
            self._bar.update(self._task, description=words)
        validated = any(name in values for name in SCORES)
        if words and (self._plain or validated):
            left = "" if validated else f", {self._time_left(step + 1)}"
            what = "validation: " if validated else ""
            print_line(self._bar.console, f"step {step + 1}/{self._steps}: {what}{words}{left}")
        if self._board is not None:
            for name, value in values.items():
                for number, one in enumerate(value if isinstance(value, Sequence) else [value], start=1):
                    self._board.add_scalar(f"{name}/{number}" if isinstance(value, Sequence) else name, one, step)

    @contextmanager
    def validating(self) -> Iterator[None]:
        """A block whose time is no step's."""
        began = time.monotonic()
        yield
        self._validated += time.monotonic() - began

    def has_validation(self, step: int) -> bool:
        """Whether a validation of that step, and not only its losses, is recorded."""
        return any(_step_of(line) == step and '"loss"' not in line for line in _lines(self._path))

    def _remove_if_empty(self) -> None:
        """A run that failed in its first step leaves nothing to clear up."""
        with suppress(OSError):
            found = self._path.lstat()
            if stat.S_ISREG(found.st_mode) and not found.st_size:  # a device has no size either
                self._path.unlink()

    def _not_written(self, error: OSError) -> DovitError:
        return unwritten(self._path, error)

    def _time_left(self, done: int) -> str:
        """From the mean of the steps so far: validation counts in what is left, not in a step; saving counts in both."""
        steps, passed = max(done - self._start, 1), time.monotonic() - self._began
        pace = (passed - self._validated) / steps
        minutes = passed / steps * (self._steps - done) / 60
        return (
            f"{pace:.3g} s a step, {minutes / 60:.1f} h left"
            if minutes > 90
            else f"{pace:.3g} s a step, {minutes:.0f} min left"
        )

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if not self._quiet:
            self._bar.update(self._task, completed=step)


def read_scores(out: Path, step: int) -> dict[str, float]:
    """What validation after step `step` (from 0) gave in the run in OUT, by name and in percent; empty where none ran."""
    found: dict[str, float] = {}
    for line in (out / LOG_NAME).read_text(encoding="utf-8").splitlines():
        if _step_of(line) == step:
            found |= {name: value for name, value in json.loads(line).items() if name in SCORES}
    return found


def _as_plain(value: Value) -> Any:
    return [float(v) for v in value] if isinstance(value, Sequence) else float(value)


def _short(value: Value) -> str:
    return "/".join(f"{v:.0f}" for v in value) if isinstance(value, Sequence) else f"{value:.3f}"


def _drop_lines_from(path: Path, step: int) -> None:
    """Remove the lines from `step` on: a run that continues there writes them again."""
    if path.exists():
        kept = [line for line in _lines(path) if _step_of(line) < step]
        with atomic_write(path) as part:
            part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, MAX_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        raise DovitError(
            f"{path}: cannot be read ({error.strerror or error}); move it away, or give another --out"
        ) from None


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")  # an incomplete last line, left by a killed run


def _tensorboard(out: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(out / "tensorboard", purge_step=start)
