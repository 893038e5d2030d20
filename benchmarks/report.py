"""Settings of dovit-bench's measurements on a CPU, and the first fields of their reports: machine, versions, model."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.errors import DovitError, printable, shortened

PACKAGES = ("dovit", "numpy", "onnxruntime", "openvino", "nncf", "torch")


@dataclass(frozen=True)
class Settings:
    """How rows are measured: `runs` times after `warmup` runs that do not count, with `threads` CPU threads.

    `keep`: shares of all tokens to keep after each decision, for a row more; `only`: parts of the names of rows, of which one
    must occur in a row's name, where not all are wanted.
    """

    runs: int
    warmup: int
    threads: int
    keep: tuple[float, ...] | None = None
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether the row of that name is to be measured."""
        return not self.only or any(part in name for part in self.only)


def at_least_one(text: str) -> int:
    """The type of an option of argparse: a whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


@contextmanager
def errors_in_a_sentence(parser: ArgumentParser) -> Iterator[None]:
    """Of a program of `parser`: a DovitError ends it with one line on stderr and the error's status, as the commands end."""
    try:
        yield
    except DovitError as error:
        parser.exit(error.exit_status, f"{parser.prog}: error: {shortened(printable(str(error)))}\n")


def report_head(engine: Path, manifest: Manifest, settings: Settings) -> dict[str, Any]:
    """The report's fields beside its rows. `engine`: what to call the model; `load_average`: above 0, others used the
    processor too."""
    return {
        "engine": str(engine),
        "architecture": manifest.architecture,
        "image_size": list(manifest.image_size),
        "tokens": manifest.tokens,
        "runs": settings.runs,
        "warmup": settings.warmup,
        "threads": settings.threads,
        **machine_and_versions(PACKAGES),
    }


def machine_and_versions(packages: Iterable[str]) -> dict[str, Any]:
    """`processor`, `cores` that this process may use, `load_average`, and `versions` of Python and of those `packages` that are
    installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "versions": found,
    }


def _processor() -> str:
    """Its name, where Linux says it; the architecture elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.machine()
