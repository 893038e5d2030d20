"""`dovit-eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dovit.evaluation.cli.options import Data, ReduceZeroLabel
from dovit.evaluation.cli.outputs import bundle_files, data_files, json_text, refuse_inputs
from dovit.evaluation.cost import Macs
from dovit.evaluation.data import open_data
from dovit.evaluation.data.dataset import IGNORE, Dataset, Sample
from dovit.evaluation.evaluate import Outcome, PerImage, evaluate
from dovit.evaluation.page.gallery import Gallery
from dovit.evaluation.page.write import check_page, write_page
from dovit.evaluation.plot import check_plot
from dovit.evaluation.plot import plot as draw
from dovit.evaluation.report import as_json as outcome_as_json
from dovit.evaluation.report import print_classes, print_outcomes
from dovit.evaluation.segmenter import BundleSegmenter, Segmenter, Setting
from dovit.evaluation.stopped import StoppedBySetting
from dovit.runtime.arguments import counts_of_shares
from dovit.runtime.bundle.manifest import Mode as RunMode
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import (
    ENGINE,
    KEEP,
    Backend,
    BackendChoice,
    Json,
    ModeChoice,
    Precision,
    Provider,
    ProviderChoice,
    Schedule,
    Threads,
    Threshold,
    mode_option,
)
from dovit.runtime.cli.output import output_console, print_line, progress_counter
from dovit.runtime.cli.unused import refuse_unused, refuse_without_decisions
from dovit.runtime.cli.values import parse_shares, parse_thresholds, split_list
from dovit.runtime.errors import UsageError, printable
from dovit.runtime.files import atomic_write, check_output, real_path
from dovit.runtime.loading import load
from dovit.runtime.palettes import default_palette
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.training.cli.options import refuse_checkpoints

if TYPE_CHECKING:
    from dovit.training.torch_segmenter import TorchSegmenter

EPILOG = """\b
Examples:
    dovit-eval --engine engines/ --data cityscapes:/data/cityscapes
    dovit-eval --engine engines/ --data /data/ade20k \\
        --sweep 0.95,0.96,0.97,0.98,0.99,1 --plot sweep.png --out sweep.json
    dovit-eval --engine engines/ --data streets:200 --sweep 0.95,0.98 \\
        --fixed-ratio --per-image images.jsonl
    dovit-eval --engine engines/ --data /data/ade20k --sweep 0.95,0.98,1 \\
        --report report.html
    dovit-eval --engine engines/ --data /data/ade20k --sweep 0.95,0.98 \\
        --stopped
    dovit-eval --engine engines/ --data /data/ade20k --sweep 0.95,0.98 \\
        --dense --provider openvino --precision bf16
    dovit-eval --ckpt dyvit.safetensors --data streets:200
"""


class Split(StrEnum):
    """Parts of a data set."""

    TRAIN = "train"
    VAL = "val"


def command(
    data: Data,
    engine: Annotated[Path | None, ENGINE] = None,
    ckpt: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Instead of --engine: a checkpoint, run by torch.")
    ] = None,
    split: Annotated[Split, typer.Option(metavar="PART", help="Which part of the data: train or val.")] = Split.VAL,
    mode: Annotated[ModeChoice | None, mode_option("that of the bundle or checkpoint")] = None,
    schedule: Schedule = None,
    backend: Backend = BackendChoice.auto,
    provider: Provider = ProviderChoice.auto,
    precision: Precision = None,
    threshold: Threshold = None,
    keep: Annotated[
        str | None, typer.Option(metavar="SHARES", help=f"Instead of --threshold, for every image alike: {KEEP}.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ξ,…",
            help="Several settings, each one ξ for all decisions, or one each, as 0.95,0.9/0.95/0.98,1 of three decisions.",
        ),
    ] = None,
    fixed_ratio: Annotated[
        bool, typer.Option("--fixed-ratio", help="Beside each ξ, as many tokens in every image as it keeps on average.")
    ] = False,
    stopped: Annotated[
        bool,
        typer.Option("--stopped", help="Also count the stopped tokens whose label would have been another at ξ = 1."),
    ] = False,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Also run the model without decisions as one graph, with the same provider: speed-ups are over it, "
            "otherwise over ξ = 1 where the sweep has it.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most so many images, the first ones. Default: all.")
    ] = None,
    ignore_index: Annotated[
        int, typer.Option(metavar="N", min=0, max=255, help="The label that does not count.")
    ] = IGNORE,
    reduce_zero_label: ReduceZeroLabel = None,
    threads: Threads = None,
    per_image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write tokens and MACs by block of every image, as JSON lines.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the sweep, as .png, .svg or .pdf.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the measurements as JSON.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a report as .html: tables, figures, classes, the images at the extremes."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a bundle on labelled images: mIoU, PA, mPA, tokens kept, MACs, latency."""
    if (engine is None) == (ckpt is None):
        raise UsageError("give either --engine, a bundle, or --ckpt, a checkpoint")
    if plot is not None and not sweep:
        raise UsageError("--plot draws a sweep: give --sweep with some ξ, as 0.95,0.97,0.99,1")
    if fixed_ratio and keep is not None:
        raise UsageError("--fixed-ratio goes with ξ, and --keep is a fixed ratio by itself: give one of them")
    if ckpt is not None and (
        schedule or threads or precision or backend is not BackendChoice.auto or provider is not ProviderChoice.auto
    ):
        raise UsageError(
            "--schedule, --backend, --provider, --precision and --threads are for a bundle: a checkpoint is run by torch, exact"
        )
    if dense and (ckpt is not None or backend not in (BackendChoice.auto, BackendChoice.onnxruntime)):
        raise UsageError(
            "--dense is for a bundle on a CPU; dovit-bench --backend tensorrt-rtx times dense plans on a GPU"
        )
    files = ((out, "--out"), (plot, "--plot"), (per_image, "--per-image"), (report, "--report"))
    written = [(path, flag) for path, flag in files if path]
    if len({real_path(path) for path, _ in written}) < len(written):
        raise UsageError("--out, --plot, --per-image and --report need a file each")
    for path, flag in written:  # now rather than after hours of work
        check_output(path, flag)
    if plot is not None:
        check_plot(plot)
    if report is not None:
        check_page(report)
    about: dict[str, Any]
    session: Session | None = None
    if engine is not None:
        session = load(
            engine,
            backend.value,
            threads=threads,
            provider=provider.value,
            precision=precision.value if precision else None,
        )
        how, chosen = mode.value if mode else session.manifest.mode, schedule.value if schedule else session.schedule
        segmenter: Segmenter = BundleSegmenter(session, how, chosen)
        own, size = Setting("bundle's ξ", session.manifest.thresholds), session.manifest.image_size
        names, own_palette = session.manifest.class_names, session.manifest.palette
        about = {
            "engine": str(engine),
            "backend": session.backend,
            "provider": session.provider,
            "precision": session.precision,
            "schedule": chosen,
        }
    else:
        assert ckpt is not None
        loaded = _torch(ckpt, mode.value if mode else None)
        segmenter, how, config = loaded, loaded.mode, loaded.model.config
        own, size = loaded.own, config.image_size
        names, own_palette = config.class_names, config.palette
        about = {"ckpt": str(ckpt), "backend": "torch", "schedule": "exact"}
    about_tokens = {
        "--threshold": bool(threshold),
        "--keep": bool(keep),
        "--schedule": schedule is not None,
        "--sweep": bool(sweep),
        "--fixed-ratio": fixed_ratio,
        "--stopped": stopped,
    }
    refuse_without_decisions(about_tokens, segmenter.decisions)
    if own.counts is not None:
        refuse_unused(
            about_tokens,
            f"{ckpt} is a DynamicViT, which keeps as many tokens as it was trained to keep, whatever ξ says",
        )
    dataset = open_data(data, split.value, size=size, classes=segmenter.classes, reduce_zero_label=reduce_zero_label)
    names = names or dataset.class_names or tuple(map(str, range(segmenter.classes)))
    palette = own_palette or dataset.palette or default_palette(segmenter.classes)
    _refuse_inputs(written, engine, session, ckpt, dataset)
    settings = _settings(segmenter, own, threshold, keep, sweep)
    if stopped:
        if how != "whole":
            raise UsageError("--stopped compares the patches of whole images: give --mode whole")
        if not any(setting.stops_nothing for setting in settings):
            settings.append(_common(1, segmenter.decisions, "--threshold"))
    wrongly = StoppedBySetting(settings, segmenter.classes, size) if stopped else None
    galleries = [Gallery(segmenter.cost, palette, size, ignore_index) for _ in settings if report is not None]

    def look(place: int, sample: Sample, result: Result, costs: list[list[Macs]]) -> None:
        if galleries:
            galleries[place].add(sample, result, costs)
        if wrongly is not None:
            wrongly.add(place, result)

    with progress_counter() as counter, ExitStack() as stack:
        without = stack.enter_context(_dense(engine, session, how, threads)) if dense and engine and session else None

        def track(numbers: Iterable[int], total: int) -> Iterable[int]:
            return counter(numbers, total, "evaluating")

        with _lines(per_image) as write:
            outcomes = evaluate(
                segmenter,
                dataset,
                settings,
                limit=limit,
                ignore=ignore_index,
                dense=without,
                per_image=write,
                observe=look if galleries or wrongly else None,
                track=track,
            )
        dense_outcome = outcomes.pop() if without is not None else None
        if fixed_ratio:
            matched = [_matched(o) for o in outcomes]
            again = evaluate(segmenter, dataset, matched, limit=limit, ignore=ignore_index, dense=without, track=track)
            outcomes += again[: len(matched)]
    measured = {
        **about,
        "data": data,
        "split": split.value,
        "mode": how,
        **({} if dense_outcome is None else {"dense": outcome_as_json(dense_outcome, names)}),
        "settings": [outcome_as_json(outcome, names) for outcome in outcomes],
    }
    if wrongly is not None:
        for told, counts in zip(measured["settings"], wrongly.counts, strict=False):  # then come fixed ratios
            told["stopped"] = counts.as_json(names)
    if as_json:
        print(json_text(measured))
    else:
        output = output_console()
        print_outcomes(output, outcomes if dense_outcome is None else [dense_outcome, *outcomes])
        if len(outcomes) == 1:
            print_classes(output, outcomes[0], names)
        if wrongly is not None:
            wrongly.print(output, names)
    if out is not None:
        with atomic_write(out) as part:
            part.write_text(json_text(measured, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        title = f"{(engine or ckpt or plot).absolute().name} on {outcomes[0].images} images"
        draw(outcomes, plot, printable(title))
    if report is not None:
        described = {
            **{name: str(value) for name, value in about.items()},
            "data": data,
            "split": split.value,
            "mode": how,
        }
        model = (engine or ckpt or report).absolute().name
        write_page(
            report,
            outcomes,
            galleries,
            title=f"{model} on {data}",
            about=described,
            names=names,
            palette=palette,
        )
        if not as_json:
            print_line(output_console(), f"report: {report}")


def _refuse_inputs(
    written: Sequence[tuple[Path, str]],
    engine: Path | None,
    session: Session | None,
    ckpt: Path | None,
    dataset: Dataset,
) -> None:
    """Raise UsageError where an output would take the place of what is read."""
    for path, flag in written:
        if engine is not None and session is not None:
            refuse_inputs(path, flag, {"--engine": bundle_files(engine, session.manifest)})
        refuse_checkpoints(path, flag, {"--ckpt": ckpt})
        if path.exists():  # or it is none of the thousands of files there
            refuse_inputs(path, flag, {"--data": data_files(dataset)})


def _torch(ckpt: Path, mode: RunMode | None) -> TorchSegmenter:
    try:
        import torch

        from dovit.training.torch_segmenter import read_segmenter
    except ModuleNotFoundError as error:
        raise UsageError(f"--ckpt needs the package {error.name}: pip install 'dovit[training]'") from None
    return read_segmenter(ckpt, torch.device("cuda" if torch.cuda.is_available() else "cpu"), mode)


def _dense(engine: Path, session: Session, mode: RunMode, threads: int | None) -> AbstractContextManager[Segmenter]:
    try:
        from dovit.training.dense_segmenter import dense_segmenter
    except ModuleNotFoundError as error:
        raise UsageError(f"--dense needs the package {error.name}: pip install 'dovit[export]'") from None
    return dense_segmenter(engine, session, mode, threads)


def _settings(
    segmenter: Segmenter, own: Setting, threshold: Sequence[str] | None, keep: str | None, sweep: Sequence[str] | None
) -> list[Setting]:
    if sum(bool(given) for given in (threshold, keep, sweep)) > 1:
        raise UsageError("give one of --threshold, --keep and --sweep")
    decisions, tokens = segmenter.decisions, segmenter.cost.tokens
    if keep is not None:
        shares = parse_shares(keep, "--keep") or ()
        counts = counts_of_shares(shares, decisions, tokens, segmenter.least_kept, "--keep")
        return [Setting(f"keep {keep}", (1.0,) * decisions, counts)]
    if sweep:
        swept = {thresholds for text in sweep for thresholds in _swept(text, decisions)}
        return [Setting.of(thresholds) for thresholds in sorted(swept)]
    given = parse_thresholds(threshold)
    if given:
        if len(given) == 1:
            return [_common(given[0], decisions, "--threshold")]
        text = ",".join(threshold or ())
        if len(given) != decisions:
            raise UsageError(f"--threshold {text}: give one ξ for all decisions, or {decisions} of them")
        return [Setting.of(given)]
    return [own]


def _common(value: float, decisions: int, flag: str) -> Setting:
    _check_threshold(value, flag)
    return Setting.of((value,) * decisions)


def _swept(text: str, decisions: int) -> Iterator[tuple[float, ...]]:
    """ξ of each decision for every setting of one --sweep: 0.98 for all, or 0.9/0.95/0.98."""
    parts = split_list(text)
    try:
        settings = [tuple(map(float, part.split("/"))) for part in parts]
    except ValueError:
        raise UsageError(
            f"--sweep {text}: give numbers separated by commas, as 0.9,0.95, or one for each decision, as 0.9/0.95/0.98"
        ) from None
    for part, values in zip(parts, settings, strict=True):
        for value in values:
            _check_threshold(value, "--sweep")
        if len(values) not in (1, decisions):
            raise UsageError(f"--sweep {part}: give one ξ for all decisions, or {decisions} of them between slashes")
        yield values * decisions if len(values) == 1 else values


def _check_threshold(value: float, flag: str) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{flag} {value:g} lies outside [0, 1]; 1 stops no token")


def _matched(outcome: Outcome) -> Setting:
    """A fixed ratio that keeps in every image as many tokens as this outcome's ξ keeps on average."""
    counts = tuple(round(kept) for kept in outcome.kept)
    return Setting(f"fixed, as {outcome.setting.name}", outcome.setting.thresholds, counts)


@contextmanager
def _lines(path: Path | None) -> Iterator[PerImage | None]:
    """A file of JSON lines, written atomically."""
    if path is None:
        yield None
        return
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        yield lambda record: print(json_text(record), file=file)


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-eval", epilog=EPILOG)
