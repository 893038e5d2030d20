"""Options that `dovit-train` and `dovit-adapt` share."""

from __future__ import annotations

from typing import Any

import typer


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
