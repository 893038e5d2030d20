"""Options of the commands that read labelled data, or images without labels."""

from __future__ import annotations

from typing import Annotated, Any

import typer

DATA_LAYOUTS = "A folder (Cityscapes, ADE20K, images/ and labels/), or streets:COUNT."
Data = Annotated[str, typer.Option(metavar="DATA", help=DATA_LAYOUTS)]
ReduceZeroLabel = Annotated[
    bool | None,
    typer.Option("--reduce-zero-label/--keep-zero-label", help="Label 0 means ignore. Default: as the data has it."),
]
IMAGES = typer.Option(metavar="PATH", help="Image files, folders, or quoted globs, without labels; may be repeated.")


def limit_option(default: str = "", least: int = 1) -> Any:
    """`--limit` of those images; `default`: a sentence more."""
    return typer.Option(min=least, metavar="N", help=f"At most so many images, evenly spread over the list.{default}")
