"""`dovit-calibrate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dovit.evaluation.calibration.fit import Target, calibrate
from dovit.evaluation.calibration.observe import Observer
from dovit.evaluation.calibration.report import print_report
from dovit.evaluation.calibration.write import write_calibration
from dovit.evaluation.cli.options import UNLABELLED, limit_option, sample_evenly
from dovit.evaluation.cli.outputs import bundle_files, json_text, refuse_inputs
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.options import KEEP, Engine, Json, Mode, Recursive, Threads
from dovit.runtime.cli.output import output_console, print_line, progress_counter
from dovit.runtime.cli.unused import refuse_unused
from dovit.runtime.cli.values import parse_share, parse_shares
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import atomic_write, check_output, check_writable
from dovit.runtime.loading import load

EPILOG = """\b
Examples:
    dovit-calibrate --engine engines/ --images photos/ --keep 0.5,0.35,0.25
    dovit-calibrate --engine engines/ --images 'frames/*.jpg' --limit 200 \\
        --macs 0.5 --macs-count true
    dovit-calibrate --engine engines/ --images photos/ \\
        --max-disagreement 0.5% --dry-run --out curve.json
"""


class CountChoice(StrEnum):
    """Which multiply-accumulates."""

    paper = "paper"
    true = "true"


def command(
    engine: Engine,
    images: Annotated[list[str], typer.Option(metavar="PATH", help=f"{UNLABELLED}.")],
    keep: Annotated[str | None, typer.Option(metavar="SHARES", help=f"Target: {KEEP}.")] = None,
    macs: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Target: share of the dense model's MACs, as 0.5 or 50%.")
    ] = None,
    max_disagreement: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Target: share of the pixels whose label may change, as 0.005 or 0.5%."),
    ] = None,
    more_images: Annotated[list[str] | None, typer.Argument(metavar="IMAGES", help="More of --images.")] = None,
    recursive: Recursive = False,
    macs_count: Annotated[
        CountChoice | None,
        typer.Option(
            metavar="COUNT",
            help="With --macs or --max-disagreement: paper (default), without the products in attention, or true.",
        ),
    ] = None,
    per_decision: Annotated[
        bool,
        typer.Option("--per-decision", help="With --max-disagreement: a ξ of its own for each decision. Takes longer."),
    ] = False,
    limit: Annotated[int | None, limit_option(" Default: all.")] = None,
    mode: Mode = None,
    threads: Threads = None,
    points: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many ξ the curve starts from; 0, with --keep only: no curve.")
    ] = 9,
    buckets: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many capacities, 0 and all tokens included. Default: as many as now."),
    ] = None,
    round_to: Annotated[int, typer.Option(metavar="N", help="Capacities that are multiples of this.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and leave the bundle as it is.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the curve and everything else as JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit thresholds ξ and capacities of a bundle to unlabelled images, and write them into its manifest."""
    target = Target(
        parse_shares(keep, "--keep"),
        parse_share(macs, "--macs"),
        _parse_disagreement(max_disagreement),
        macs_count.value if macs_count else "paper",
        per_decision,
    )
    target.check_choice()
    if keep is not None:
        refuse_unused({"--macs-count": macs_count is not None}, "--keep counts tokens, and no MACs")
    given = [one.file for one in find_inputs([*images, *(more_images or [])], recursive=recursive)]
    files = sample_evenly(given, limit)
    session = load(engine, threads=threads)
    how = mode.value if mode else session.manifest.mode
    if not dry_run:
        check_writable(engine, "--engine")
    if out:
        check_output(out, "--out")
        refuse_inputs(out, "--out", {"--engine": bundle_files(engine, session.manifest), "--images": given})
    with progress_counter() as counter:
        observer = Observer(session, files, how, lambda paths, what: counter(paths, len(paths), what))
        found = calibrate(observer, target, points=points, buckets=buckets, round_to=round_to)
    failures: list[DovitError] = []
    if not dry_run:
        try:
            write_calibration(engine, session.manifest, found.after.thresholds, found.capacities)
        except DovitError as error:  # the numbers took long to find: show them first
            failures.append(error)
    written = not dry_run and not failures
    text = json_text(
        {
            "engine": str(engine),
            "images": len(files),
            "mode": how,
            "tokens": session.manifest.tokens,
            "target": target.as_json(),
            **found.as_json(),
            "written": written,
        }
    )
    if as_json:
        print(text)
    else:
        screen = output_console()
        print_report(screen, found)
        done = f"written into {engine}" if written else f"{engine} is left as it is" + " (--dry-run)" * dry_run
        plural = "s" * (len(files) != 1)
        print_line(screen, f"{len(files)} image{plural}; {done}")
    if out:
        try:
            with atomic_write(out) as part:
                part.write_text(text + "\n", encoding="utf-8")
        except DovitError as error:
            failures.append(error)
    if failures:
        known = f"; the calibration itself is written into {engine}" if written else ""
        raise type(failures[0])("; ".join(map(str, failures)) + known)


def _parse_disagreement(text: str | None) -> float | None:
    """A share of the pixels. Raises UsageError for `0.5` in place of `0.5%`, with which nearly all tokens would stop."""
    share = parse_share(text, "--max-disagreement")
    if text is not None and share is not None and 0.1 <= share < 1 and "%" not in text:
        raise UsageError(
            f"--max-disagreement {text}: {share * 100:g} % of the pixels; write {text}% for {share:g} %, or {share * 100:g}%"
        )
    return share


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-calibrate", epilog=EPILOG)
