"""Options of the commands that read labelled data, or images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import typer

DATA_LAYOUTS = "A folder (Cityscapes, ADE20K, images/ and labels/), or streets:COUNT."
Data = Annotated[str, typer.Option(metavar="DATA", help=DATA_LAYOUTS)]
ReduceZeroLabel = Annotated[
    bool | None,
    typer.Option("--reduce-zero-label/--keep-zero-label", help="Label 0 means ignore. Default: as the data has it."),
]
UNLABELLED = "Image files, folders, or quoted globs, without labels; may be repeated"
T = TypeVar("T")


def limit_option(default: str = "", least: int = 1) -> Any:
    """`--limit` of those images; `default`: a sentence more."""
    return typer.Option(min=least, metavar="N", help=f"At most so many images, evenly spread over the list.{default}")


def sample_evenly(files: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most `limit` of `files`, or of their numbers, at even distances: a sorted folder often has one place or day after the
    other."""
    if limit is None or limit >= len(files):
        return files
    return [files[k * len(files) // limit] for k in range(limit)]
