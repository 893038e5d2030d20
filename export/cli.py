"""`dovit-export`."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dovit.export.cli_options import Arch, Classes, DecisionLayers, Head, ImageSize, Threshold, read_fields
from dovit.export.quantization.request import quantization_request
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import BackendChoice, Json, ModeChoice, PrecisionChoice
from dovit.runtime.cli.output import output_console, print_line, stage_progress
from dovit.runtime.cli.unused import refuse_unused
from dovit.runtime.cli.values import parse_capabilities, parse_channels, parse_numbers, parse_size
from dovit.runtime.errors import UsageError
from dovit.runtime.files import check_folder_name

if TYPE_CHECKING:
    from dovit.engines.add import Added
    from dovit.export.run import Exported, PlanBuilder

EPILOG = """\b
Examples:
    dovit-export --ckpt model.pth --out engines/
    dovit-export --ckpt setr_pup.pth --out engines/ \\
        --decision-layers 10,15,20 --threshold 0.98 --palette cityscapes
    dovit-export --ckpt dinov2_vits14_pretrain.pth --dense --out dense/ \\
        --head dinov2_vits14_ade20k_linear_head.pth
    dovit-export --ckpt plain_segmenter.pth --out dense/ --dense \\
        --image-size 512x1024
    dovit-export --ckpt model.pth --out engines/ --backend tensorrt-rtx \\
        --precision bf16 --compute-capability 8.9,12.0
    dovit-export --engine engines/ --backend tensorrt
    dovit-export --ckpt model.pth --out engines/ --precision int8 \\
        --calibrate photos/
    dovit-export --ckpt model.pth --out engines/ \\
        --compare logits.npy --image image.png
    dovit-export --list-backends
"""


class ExportPrecision(StrEnum):
    """Of the plans, or of the products in the bundle."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"
    fp8 = "fp8"


def command(
    ckpt: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Of dovit, mmsegmentation, rstrudel/segmenter, DINOv2, DINOv3 or EoMT: a file, or a Hugging Face folder.",
        ),
    ] = None,
    head: Head = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The bundle to write; other files in the folder stay.")
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Instead of --ckpt: a bundle that gets plans. Default of --out: the same."),
    ] = None,
    arch: Arch = None,
    image_size: ImageSize = None,
    classes: Classes = None,
    decision_layers: DecisionLayers = None,
    palette: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cityscapes, ade20k, or a file with names and colours."),
    ] = None,
    threshold: Threshold = None,
    capacities: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Kept counts of the bucketed schedule, as 256,512."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration, for a checkpoint without one.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting over the checkpoint's configuration; repeatable."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="N,N,N", help="Of R, G, B from 0 to 255, as 123.7,116.3,103.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="N,N,N", help="As --mean.")] = None,
    bgr: Annotated[bool | None, typer.Option("--bgr/--rgb", help="The order of channels of the weights.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Attention heads.")] = None,
    norm_eps: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="Epsilon of the backbone's LayerNorms.")
    ] = None,
    stride: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the sliding window, HEIGHTxWIDTH or one number.")
    ] = None,
    mode: Annotated[
        ModeChoice | None,
        typer.Option(metavar="MODE", help="How images of another size are run where nobody says: whole or slide."),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Export without decisions, as the plain segmenter.")] = False,
    backend: Annotated[
        BackendChoice,
        typer.Option(
            metavar="NAME",
            help="Build plans for tensorrt or tensorrt-rtx, or none (onnxruntime); auto: for what can build here.",
        ),
    ] = BackendChoice.auto,
    precision: Annotated[
        ExportPrecision | None,
        typer.Option(
            metavar="TYPE",
            help="Of the plans: fp32, fp16 (default) or bf16. Of the layers' products in ONNX files and plans: int8 or fp8, with "
            "--calibrate; what else plans compute is fp16 then.",
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="For int8 and fp8: images, folders or quoted globs; repeatable."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="For int8 and fp8: labelled images to measure mIoU on, as dovit-eval's."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(metavar="N.N,…", help="GPUs to build for, as 8.9,12.0. Default: this GPU's, or portable."),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Images a pass.")] = 1,
    profiles: Annotated[
        int | None,
        typer.Option(metavar="N", help="Ranges of token counts to optimise for."),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(metavar="MIB", help="Limit of the builder's workspace. Default: TensorRT's."),
    ] = None,
    optimisation_level: Annotated[
        int | None,
        typer.Option(
            "--optimisation-level",
            "--optimization-level",
            metavar="N",
            help="0 to 5, as trtexec's --builderOptimizationLevel. Default: TensorRT's.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TensorRT's timings, read and added to.")
    ] = None,
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="Token pass inside TensorRT's plans, for programs without dovit."),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Plans built before. Default: ~/.cache/dovit/plans."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build every plan, and keep none.")] = False,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Plans built side by side.")] = None,
    plans_only: Annotated[bool, typer.Option("--plans-only", help="Leave the ONNX files out of the bundle.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Compare with the torch model, and plans' precision with fp32."),
    ] = True,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Logits of --image that your own framework saved (.npy): the bundle must equal them."
        ),
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The image of --compare.")] = None,
    compare_tolerance: Annotated[
        float | None,
        typer.Option(min=0, metavar="N", help="Of --compare, relative to the largest logit. Default: 0.001."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make everything anew, even if nothing changed.")] = False,
    as_json: Json = False,
    list_backends: Annotated[
        bool, typer.Option("--list-backends", help="Say what is installed and can build or run here.")
    ] = False,
) -> None:
    """Turn a checkpoint into a bundle: per-block ONNX subgraphs, and TensorRT plans where they can be built."""
    if list_backends:
        _list_backends(as_json)
        return
    model_flags = {
        **read_fields(
            arch=arch,
            head=head,
            classes=classes,
            image_size=image_size,
            decision_layers=decision_layers,
            threshold=threshold,
            dense=dense,
        ),
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
    if out is not None:
        check_folder_name(out, "--out")
    if (compare is None) != (image is None):
        raise UsageError("--compare takes logits, and --image the image that they were made of: give both or neither")
    if compare is None and compare_tolerance is not None:
        raise UsageError("--compare-tolerance is for --compare")
    if dense:
        of_decisions = {
            "--decision-layers": decision_layers is not None,
            "--threshold": threshold is not None,
            "--capacities": capacities is not None,
        }
        refuse_unused(of_decisions, "--dense exports the model without decisions")
    if backend is BackendChoice.onnxruntime:
        of_plans = {"--plans-only": plans_only, "--cache": cache is not None, "--no-cache": no_cache}
        refuse_unused(of_plans, "--backend onnxruntime builds no plans")
    if no_cache:
        refuse_unused({"--cache": cache is not None}, "--no-cache builds every plan, and keeps none")
    if engine is not None and (any(model_flags.values()) or bgr is not None or wanted or palette or force):
        raise UsageError("options of the model, and --force, are for --ckpt: the bundle's ONNX files stay as they are")

    quantization = quantization_request(precision.value if precision else None, calibrate, data)
    if quantization and engine is not None and out is None:
        raise UsageError("give --out, another folder: the quantized bundle does not replace the float32 one")

    start = time.perf_counter()
    with stage_progress() as progress:
        progress("looking for an installed TensorRT")
        builder, added = _plan_builder(
            backend,
            None if quantization or precision is None else PrecisionChoice(precision.value),
            {
                "batch": batch,
                "profiles": profiles,
                "workspace_mib": workspace,
                "jobs": jobs,
                "optimisation_level": optimisation_level,
                "timing_cache": timing_cache,
                "plugins": plugins,
                "compute_capabilities": parse_capabilities(compute_capability),
            },
            cache,
            no_cache=no_cache,
            verify=verify,
        )
        if builder is None:
            refuse_unused({"--plans-only": plans_only}, "no TensorRT that could build plans is installed")
        try:
            from dovit.export.compare import TOLERANCE, Reference
            from dovit.export.run import add_plans, compare_bundle, export, quantize_bundle

            reference = None
            if compare is not None and image is not None:
                bound = TOLERANCE if compare_tolerance is None else compare_tolerance
                reference = Reference(compare, image, bound, mode.value if mode else None)
            if engine is not None:
                checked = compare_bundle(engine, reference, progress) if reference else None
                if builder is None and checked is None and quantization is None:
                    raise UsageError(
                        "--engine adds plans: give a --backend that has them (dovit-export --list-backends says what can "
                        "build them here)"
                    )
                if quantization is not None:
                    assert out is not None
                    keep = not plans_only
                    done = quantize_bundle(engine, out, quantization, builder, keep_onnx=keep, progress=progress)
                    done.comparison = checked.comparison if checked else None
                elif builder is None:
                    assert checked is not None
                    done = checked
                else:
                    done = add_plans(engine, out or engine, builder, keep_onnx=not plans_only, progress=progress)
                    done.comparison = checked.comparison if checked else None
            else:
                assert ckpt is not None and out is not None
                done = export(
                    ckpt,
                    out,
                    model_flags,
                    wanted,
                    palette,
                    check=verify,
                    reference=reference,
                    quantization=quantization,
                    plans=builder,
                    keep_onnx=not plans_only,
                    force=force,
                    progress=progress,
                )
        except ModuleNotFoundError as error:
            raise UsageError(f"dovit-export needs the package {error.name}: pip install 'dovit[export]'") from None
    _report(done, added, out or engine, time.perf_counter() - start, as_json=as_json)


def _plan_builder(
    backend: BackendChoice,
    precision: PrecisionChoice | None,
    given: dict[str, Any],
    cache: Path | None,
    *,
    no_cache: bool,
    verify: bool,
) -> tuple[PlanBuilder | None, Added | None]:
    """What builds the plans; None where the bundle gets none."""
    from dovit.engines.flavours import check_builder, choose_flavour

    flavour = choose_flavour(backend.value)
    if flavour is None:
        asked = [name for name, value in given.items() if value is True or value not in (None, (), False, 1)] + [
            "precision"
        ] * (precision is not None)
        if asked and backend is BackendChoice.onnxruntime:
            raise UsageError(
                f"--{asked[0].replace('_', '-')} is for plans, which --backend onnxruntime builds none of: leave one of them out"
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


def _report(done: Exported, added: Added | None, out: Path | None, seconds: float, *, as_json: bool) -> None:
    manifest = done.manifest
    built = added.plans if added else None
    if as_json:
        report = {
            "engine": str(out),
            "format": done.format,
            "notes": done.notes,
            "settings": [vars(setting) for setting in done.settings],
            "seconds": round(seconds, 2),
            "reused": done.reused,
            "manifest": manifest.model_dump(mode="json"),
            "verification": [{**vars(p), "ok": p.ok} for p in done.passes],
            "comparison": vars(done.comparison) if done.comparison else None,
            "plans": None
            if built is None
            else {
                "name": built.plans.name,
                "built": built.built,
                "seconds": built.seconds,
                "peak_bytes": built.peak_bytes,
            },
        }
        print(json.dumps(report, ensure_ascii=False))
        return
    from dovit.export.table import print_comparison, print_passes, print_settings, print_steps
    from dovit.runtime.cli.plan_tables import print_accuracy, print_plans
    from dovit.runtime.cli.quantization_table import print_quantization

    output = output_console()
    if done.settings:
        print_settings(output, done.settings)
    print_steps(output, manifest)
    if done.passes:
        print_passes(output, done.passes)
    if done.comparison:
        print_comparison(output, done.comparison)
    if manifest.quantization:
        print_quantization(output, manifest, manifest.quantization)
    for plans in manifest.plans:
        print_plans(output, manifest, plans)
        if plans.accuracy:
            print_accuracy(output, plans)
    for note in done.notes:
        print_line(output, f"note: {note}")
    if built is None:
        print_line(
            output,
            "no TensorRT plans were built (dovit-export --list-backends shows what can); the bundle runs on ONNX Runtime",
        )
    else:
        reused = sum(step.kind == "plan" for step in built.plans.steps) - built.built
        how = f"{built.built} plans built, {reused} taken from the cache, in {built.seconds:.1f} s"
        print_line(output, f"{built.plans.name}: {how}")
    thresholds = ", ".join(f"{t:g}" for t in manifest.thresholds) or "none (dense)"
    made = "float32 bundle quantized" if done.format == "quantized" else f"{done.format} checkpoint exported"
    what = "ONNX files as they were" if done.reused else made
    print_line(output, f"{out}: {what}, in {seconds:.1f} s; thresholds {thresholds}")


def _list_backends(as_json: bool) -> None:
    from dovit.engines.backends import list_backends

    reports = list_backends()
    if as_json:
        print(json.dumps([vars(report) for report in reports], ensure_ascii=False))
        return
    console = output_console()
    for report in reports:
        print_line(console, f"{report.name}  {report.version or 'not installed'}", style="bold")
        for verb, answer in (("build", report.build), ("run", report.run)):
            print_line(console, f"  {verb:<6} {answer}")


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-export", epilog=EPILOG)
