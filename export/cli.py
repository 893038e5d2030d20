"""`dovit-export`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.values import parse_capabilities, parse_channels, parse_numbers, parse_size, parse_thresholds
from dovit.runtime.errors import UsageError
from dovit.runtime.progress import Progress

if TYPE_CHECKING:
    from dovit.engines.add import Added
    from dovit.export.run import Exported, PlanBuilder

EPILOG = """Examples:

dovit-export --ckpt model.pth --out engines/

dovit-export --ckpt setr_pup.pth --out engines/ --decision-layers 10,15,20 --threshold 0.98 --palette cityscapes

dovit-export --ckpt plain_segmenter.pth --out dense/ --dense --image-size 512x1024

dovit-export --ckpt model.pth --out engines/ --backend tensorrt-rtx --precision bf16 --compute-capability 8.9,12.0

dovit-export --engine engines/ --backend tensorrt    (plans for a bundle that is there; needs no checkpoint and no torch)

dovit-export --list-backends
"""
MODEL, SETTINGS, PLANS, BUNDLE = "Model", "Settings that the checkpoint does not state", "TensorRT plans", "Bundle"


class Arch(StrEnum):
    """Decoders."""

    SETR_NAIVE = "setr-naive"
    SETR_PUP = "setr-pup"
    SETR_MLA = "setr-mla"
    SEGMENTER_MASK = "segmenter-mask"
    SEGMENTER_LINEAR = "segmenter-linear"


class PrecisionChoice(StrEnum):
    """What plans compute in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class ModeChoice(StrEnum):
    """How an image of another size is run: resized, or in windows."""

    WHOLE = "whole"
    SLIDE = "slide"


class ExportBackend(StrEnum):
    """For what the bundle is made."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def command(
    ckpt: Annotated[Path | None, typer.Option(help="Checkpoint: ours, mmsegmentation's or segmenter's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; other files in it stay.")] = None,
    engine: Annotated[Path | None, typer.Option(help="Or a bundle that only needs plans; --out is optional then.")] = None,
    arch: Annotated[
        Arch | None, typer.Option(help="The decoder, where the checkpoint does not tell.", rich_help_panel=MODEL)
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH, or one number; default the checkpoint's.", rich_help_panel=MODEL)
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, as a check.", rich_help_panel=MODEL)] = None,
    decision_layers: Annotated[
        str | None, typer.Option(help="Layers with a decision, from 1, as 3,6,9.", rich_help_panel=MODEL)
    ] = None,
    palette: Annotated[
        str | None, typer.Option(help="cityscapes, ade20k, or a file with names and colours.", rich_help_panel=MODEL)
    ] = None,
    threshold: Annotated[
        str | None, typer.Option(help="ξ: one value, or one a decision, as 0.98,0.97,0.96.", rich_help_panel=MODEL)
    ] = None,
    capacities: Annotated[
        str | None, typer.Option(help="Kept counts of the bucketed schedule, as 256,512.", rich_help_panel=MODEL)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration, for a checkpoint without one.", rich_help_panel=SETTINGS)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting over the checkpoint's configuration; repeatable.",
                     rich_help_panel=SETTINGS),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of R, G, B from 0 to 255, as 123.7,116.3,103.5.", rich_help_panel=SETTINGS)
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.", rich_help_panel=SETTINGS)] = None,
    bgr: Annotated[
        bool | None, typer.Option("--bgr/--rgb", help="The order of channels of the weights.", rich_help_panel=SETTINGS)
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads.", rich_help_panel=SETTINGS)] = None,
    norm_eps: Annotated[
        float | None, typer.Option(min=0, help="Epsilon of the backbone's LayerNorms.", rich_help_panel=SETTINGS)
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="Of the sliding window, HEIGHTxWIDTH or one number.", rich_help_panel=SETTINGS)
    ] = None,
    mode: Annotated[
        ModeChoice | None, typer.Option(help="How images of another size are run.", rich_help_panel=SETTINGS)
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Export without decisions, as the plain segmenter.", rich_help_panel=MODEL)
    ] = False,
    backend: Annotated[
        ExportBackend,
        typer.Option(help="Build plans for this; auto: for what can build here.", rich_help_panel=PLANS),
    ] = ExportBackend.AUTO,
    precision: Annotated[
        PrecisionChoice | None, typer.Option(help="Of the plans; default fp16. ONNX is fp32.", rich_help_panel=PLANS)
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="GPUs to build for, as 8.9,12.0; default this GPU's, or portable.", rich_help_panel=PLANS),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a pass.", rich_help_panel=PLANS)] = 1,
    profiles: Annotated[
        int | None, typer.Option(help="Ranges of token counts to optimise for.", rich_help_panel=PLANS)
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="Limit of the builder's workspace, MiB.", rich_help_panel=PLANS)
    ] = None,
    optimisation_level: Annotated[
        int | None,
        typer.Option("--optimisation-level", "--optimization-level", help="0 to 5, as trtexec has it.", rich_help_panel=PLANS),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="TensorRT's timings, read and added to.", rich_help_panel=PLANS)
    ] = None,
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="Token pass inside TensorRT's plans, for programs without dovit.", rich_help_panel=PLANS),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of plans built before; default ~/.cache/dovit.", rich_help_panel=PLANS)
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build every plan, and keep none.", rich_help_panel=PLANS)
    ] = False,
    jobs: Annotated[int | None, typer.Option(help="Plans built side by side.", rich_help_panel=PLANS)] = None,
    plans_only: Annotated[
        bool, typer.Option("--plans-only", help="Leave the ONNX files out of the bundle.", rich_help_panel=BUNDLE)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Compare with the torch model, and plans' precision with fp32.",
                     rich_help_panel=BUNDLE),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Make everything anew, even if nothing changed.", rich_help_panel=BUNDLE)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    list_backends: Annotated[
        bool, typer.Option("--list-backends", help="Say what is installed and can build or run here.")
    ] = False,
) -> None:  # fmt: skip
    """Turn a checkpoint into a bundle: per-block ONNX subgraphs, and TensorRT plans where they can be built."""
    if list_backends:
        _list_backends(as_json)
        return
    model_flags = {
        "arch": arch.value if arch else None,
        "image_size": parse_size(image_size, "--image-size"),
        "classes": classes,
        "decision_layers": parse_numbers(decision_layers, int, "--decision-layers"),
        "thresholds": parse_thresholds(threshold),
        "dense": dense,
        "config": config,
        "changes": tuple(changes or ()),
        "mean": parse_channels(mean, "--mean"),
        "std": parse_channels(std, "--std", positive=True),
        "bgr": bgr,
        "heads": heads,
        "norm_eps": norm_eps,
        "stride": parse_size(stride, "--stride"),
        "mode": mode.value if mode else None,
    }
    wanted = parse_numbers(capacities, int, "--capacities")
    if (ckpt is None) == (engine is None):
        raise UsageError("give either --ckpt, a checkpoint, or --engine, a bundle")
    if ckpt is not None and out is None:
        raise UsageError("give --out, the folder of the bundle")
    if engine is not None and (any(model_flags.values()) or bgr is not None or wanted or palette or force):
        raise UsageError("options of the model, and --force, are for --ckpt: the bundle's ONNX files stay as they are")

    start = time.perf_counter()
    with _progress() as progress:
        progress("looking for a builder")
        builder, added = _plan_builder(
            backend, precision,
            {
                "batch": batch, "profiles": profiles, "workspace_mib": workspace, "jobs": jobs,
                "optimisation_level": optimisation_level, "timing_cache": timing_cache,
                "plugins": plugins,
                "compute_capabilities": parse_capabilities(compute_capability),
            },
            cache, no_cache=no_cache, verify=verify,
        )  # fmt: skip
        try:
            from dovit.export.run import add_plans, export

            if engine is not None:
                if builder is None:
                    raise UsageError(
                        "--engine adds plans: give a --backend that has them (dovit-export --list-backends says what can "
                        "build them here)"
                    )
                done = add_plans(engine, out or engine, builder, keep_onnx=not plans_only, progress=progress)
            else:
                assert ckpt is not None and out is not None
                done = export(
                    ckpt, out, model_flags, wanted, palette, check=verify, plans=builder, keep_onnx=not plans_only,
                    force=force, progress=progress,
                )  # fmt: skip
        except ModuleNotFoundError as error:
            raise UsageError(f"dovit-export needs the package {error.name}: pip install 'dovit[export]'") from None
    _report(done, added, out or engine, time.perf_counter() - start, as_json=as_json)


def _plan_builder(
    backend: ExportBackend, precision: PrecisionChoice | None, given: dict[str, Any], cache: Path | None, *,
    no_cache: bool, verify: bool,
) -> tuple[PlanBuilder | None, Added | None]:  # fmt: skip
    """What builds the plans; None where the bundle gets none."""
    from dovit.engines.flavours import check_builder, choose_flavour

    flavour = choose_flavour(backend.value)
    if flavour is None:
        asked = [name for name, value in given.items() if value is True or value not in (None, (), False, 1)] + [
            "precision"
        ] * (precision is not None)
        if asked and backend is ExportBackend.ONNXRUNTIME:
            raise UsageError(
                f"--{asked[0].replace('_', '-')} is for plans: ONNX Runtime's files are float32 and need no build"
            )
        return None, None
    check_builder(flavour)
    from dovit.engines.add import Added, plan_builder
    from dovit.engines.building.cache import default_cache
    from dovit.engines.options import BuildOptions
    from dovit.engines.scenes import street_scenes

    options = BuildOptions(
        flavour, precision.value if precision else "fp16", cache=None if no_cache else cache or default_cache(), **given
    )
    added = Added()
    return plan_builder(options, street_scenes if verify else None, added), added


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line on the terminal that says what is going on, with a bar where it is known how much is left."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn()
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def say(text: str, fraction: float | None = None) -> None:
            bar.update(task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield say


def _report(done: Exported, added: Added | None, out: Path | None, seconds: float, *, as_json: bool) -> None:
    manifest = done.manifest
    built = added.plans if added else None
    if as_json:
        report = {
            "engine": str(out), "format": done.format, "notes": done.notes,
            "settings": [vars(setting) for setting in done.settings], "seconds": round(seconds, 2),
            "reused": done.reused, "manifest": manifest.model_dump(mode="json"),
            "verification": [{**vars(p), "ok": p.ok} for p in done.passes],
            "plans": None if built is None else {
                "name": built.plans.name, "built": built.built, "seconds": built.seconds, "peak_bytes": built.peak_bytes,
            },
        }  # fmt: skip
        print(json.dumps(report, ensure_ascii=False))
        return
    from dovit.export.table import print_passes, print_settings, print_steps
    from dovit.runtime.cli.plan_tables import print_accuracy, print_plans

    output = Console()
    if done.settings:
        print_settings(output, done.settings)
    print_steps(output, manifest)
    if done.passes:
        print_passes(output, done.passes)
    for plans in manifest.plans:
        print_plans(output, manifest, plans)
        if plans.accuracy:
            print_accuracy(output, plans)
    for note in done.notes:
        output.print(f"note: {note}", highlight=False)
    if built is None:
        output.print("no plans were built: dovit-export --list-backends says what can", highlight=False)
    else:
        reused = sum(step.kind == "plan" for step in built.plans.steps) - built.built
        output.print(
            f"{built.plans.name}: {built.built} plans built, {reused} taken from the cache, in {built.seconds:.1f} s",
            highlight=False,
        )
    thresholds = ", ".join(f"{t:g}" for t in manifest.thresholds) or "none (dense)"
    what = "ONNX files as they were" if done.reused else f"{done.format} checkpoint exported"
    output.print(f"{out}: {what}, in {seconds:.1f} s; thresholds {thresholds}", highlight=False)


def _list_backends(as_json: bool) -> None:
    from dovit.engines.backends import list_backends

    reports = list_backends()
    if as_json:
        print(json.dumps([vars(report) for report in reports], ensure_ascii=False))
        return
    console = Console()
    for report in reports:
        console.print(f"[bold]{report.name}[/bold]  {report.version or 'not installed'}", highlight=False)
        for verb, answer in (("build", report.build), ("run", report.run)):
            console.print(f"  {verb:<6} {escape(answer)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-export", epilog=EPILOG)
