"""`dovit-calibrate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from dovit.evaluation.calibration.fit import Target, calibrate
from dovit.evaluation.calibration.observe import Observer
from dovit.evaluation.calibration.report import print_report
from dovit.evaluation.calibration.write import write_calibration
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.run import ModeChoice
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import check_output, check_writable, replacing
from dovit.runtime.images import expand
from dovit.runtime.session import load

EPILOG = """Examples:

dovit-calibrate --engine engines/ --images photos/ --keep 0.5,0.35,0.25

dovit-calibrate --engine engines/ --images 'frames/*.jpg' --limit 200 --macs 0.5 --macs-count true

dovit-calibrate --engine engines/ --images photos/ --max-disagreement 0.5% --dry-run --out curve.json
"""


class CountChoice(StrEnum):
    """Which multiply-accumulates."""

    paper = "paper"
    true = "true"


def command(
    engine: Annotated[Path, typer.Option(help="The bundle's folder; its ξ and capacities are replaced.")],
    images: Annotated[list[str], typer.Option(help="Image files, folders, or quoted globs; may be repeated.")],
    keep: Annotated[
        str | None, typer.Option(help="Target: shares of all tokens to keep after each decision: 0.5,0.35,0.25.")
    ] = None,
    macs: Annotated[str | None, typer.Option(help="Target: share of the dense model's MACs: 0.5.")] = None,
    max_disagreement: Annotated[
        str | None, typer.Option(help="Target: share of the pixels whose label may change: 0.5% or 0.005.")
    ] = None,
    more_images: Annotated[list[str] | None, typer.Argument(metavar="IMAGES", help="More of --images.")] = None,
    macs_count: Annotated[
        CountChoice, typer.Option(help="Without the attention products, as the paper, or with them.")
    ] = CountChoice.paper,
    per_decision: Annotated[
        bool, typer.Option("--per-decision", help="With --max-disagreement: look for one ξ a decision. Takes longer.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many of the images, spread over the list.")] = None,
    mode: Annotated[ModeChoice, typer.Option(help="Resize an image, or slide a window over it.")] = ModeChoice.whole,
    points: Annotated[int, typer.Option(min=0, help="How many ξ the curve starts from; 0 with --keep: no curve.")] = 9,
    buckets: Annotated[
        int | None, typer.Option(help="How many capacities, 0 and all tokens included; default as many as now.")
    ] = None,
    round_to: Annotated[int, typer.Option(help="Capacities that are multiples of this.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and leave the bundle as it is.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the curve and everything else.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same JSON instead of tables.")] = False,
) -> None:
    """Fit thresholds ξ and capacities of a bundle to unlabelled images."""
    shares = _shares(keep, "--keep") if keep is not None else None
    target = Target(
        shares, _share(macs, "--macs"), _share(max_disagreement, "--max-disagreement"), macs_count.value, per_decision
    )
    target.check_choice()
    files = spread_out(expand([*images, *(more_images or [])]), limit)
    session = load(engine)
    if not dry_run:
        check_writable(engine, "--engine")
    if out:
        check_output(out, "--out")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:

        def track(paths: Sequence[Path], what: str) -> Iterator[Path]:
            task = bar.add_task(what, total=len(paths))
            for path in paths:
                yield path
                bar.advance(task)
            bar.remove_task(task)

        observer = Observer(session, files, mode.value, track)
        found = calibrate(observer, target, points=points, buckets=buckets, round_to=round_to)
    failure: DovitError | None = None
    if not dry_run:
        try:
            write_calibration(engine, session.manifest, found.after.thresholds, found.capacities)
        except DovitError as error:  # the numbers took long to find: show them first
            failure = error
    written = not dry_run and not failure
    result = {
        "engine": str(engine), "images": len(files), "mode": mode.value, "tokens": session.manifest.tokens,
        "target": target.as_json(), **found.as_json(), "written": written,
    }  # fmt: skip
    text = json.dumps(result, ensure_ascii=False)
    if out:
        with replacing(out) as part:
            part.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
    else:
        screen = Console()
        print_report(screen, found)
        done = f"written into {engine}" if written else "nothing was written" + " (--dry-run)" * dry_run
        plural = "s" * (len(files) != 1)
        screen.print(f"{len(files)} image{plural}; {done}", highlight=False, markup=False, soft_wrap=True)
    if failure:
        raise failure


def spread_out(files: list[Path], limit: int | None) -> list[Path]:
    """At most `limit` of `files`, at even distances: a sorted folder often has one place or day after the other."""
    if limit is None or limit >= len(files):
        return files
    return [files[k] for k in (np.arange(limit) * len(files) // limit).tolist()]


def _shares(text: str, flag: str) -> tuple[float, ...]:
    return tuple(_number(part, text, flag) for part in text.split(","))


def _share(text: str | None, flag: str) -> float | None:
    return None if text is None else _number(text, text, flag)


def _number(part: str, text: str, flag: str) -> float:
    """`0.005` or `0.5%`."""
    part = part.strip()
    try:
        return float(part[:-1]) / 100 if part.endswith("%") else float(part)
    except ValueError:
        example = "as 0.5,0.35,0.25" if flag == "--keep" else "as 0.5 or 50%"
        raise UsageError(f"{flag} {text}: not a share; give it {example}") from None


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-calibrate", epilog=EPILOG)
