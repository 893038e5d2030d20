"""Options that `dovit-train` and `dovit-adapt` share, and what they must not write over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from dovit.evaluation.cli.outputs import refuse_inputs
from dovit.runtime.errors import DovitError


def merge_option(default: str) -> Any:
    """`--merge`; `default`: what is done where it is not given."""
    return typer.Option("--merge/--no-merge", help=f"Merge stopped tokens into the class token. Default: {default}.")


def merge_cells_option(default: str) -> Any:
    """`--merge-cells`; `default`: what is done where it is not given."""
    return typer.Option(
        min=0,
        max=1024,
        metavar="SIDE",
        help=f"Merge the stopped tokens of each cell of SIDE×SIDE patches into one token; 0: none. Default: {default}.",
    )


def seed_option(what: str) -> Any:
    """`--seed`; `what`: which random choices depend on it. The bounds are those of torch and numpy together."""
    return typer.Option(metavar="N", min=0, max=0xFFFFFFFF, help=f"Seed of {what}.")


def refuse_checkpoints(
    path: Path, flag: str, checkpoints: Mapping[str, Path | None], fix: str = "name another file"
) -> None:
    """Raise UsageError where `path`, the output that `flag` names, is of one of the checkpoints that options name."""
    refuse_inputs(path, flag, {option: _files_of(one) for option, one in checkpoints.items() if one is not None}, fix)


def _files_of(checkpoint: Path) -> list[Path]:
    """The files that a checkpoint is read from, and those that would be read as well, or in their place, if they were there."""
    from dovit.export.checkpoints.huggingface import CONFIG, INDEX, PREPROCESSOR, WEIGHTS, find_weights

    settings = (CONFIG, PREPROCESSOR, "variant.yml")
    if not os.path.isdir(checkpoint):
        return [checkpoint, *map(checkpoint.with_name, settings)]
    files = [checkpoint / name for name in (*WEIGHTS, *(f"{name}{INDEX}" for name in WEIGHTS), *settings)]
    with suppress(DovitError, OSError):  # that there are none, reading them will say
        files += find_weights(checkpoint)
    return files
