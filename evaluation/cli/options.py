"""Options of the commands that read labelled data."""

from __future__ import annotations

from typing import Annotated

import typer

Data = Annotated[
    str, typer.Option(metavar="DATA", help="A folder (Cityscapes, ADE20K, images/ and labels/), or streets:COUNT.")
]
ReduceZeroLabel = Annotated[
    bool | None,
    typer.Option("--reduce-zero-label/--keep-zero-label", help="Label 0 means ignore. Default: as the data has it."),
]
