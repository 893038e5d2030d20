"""`dovit-adapt`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dovit.evaluation.cli.options import DATA_LAYOUTS, UNLABELLED, ReduceZeroLabel, limit_option, sample_evenly
from dovit.evaluation.data import open_data
from dovit.export.cli_options import Head, decision_layers_option
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.options import Json, Recursive, threshold_option
from dovit.runtime.cli.output import (
    error_console,
    new_table,
    output_console,
    print_line,
    print_table,
    stage_progress,
)
from dovit.runtime.cli.unused import refuse_unused
from dovit.runtime.cli.values import parse_numbers, parse_thresholds
from dovit.runtime.errors import UsageError
from dovit.runtime.files import check_output, made_folders, real_path
from dovit.runtime.images import read_image
from dovit.training.cli.options import merge_cells_option, merge_option, refuse_checkpoints, seed_option

if TYPE_CHECKING:
    from dovit.export.model import ModelConfig
    from dovit.training.adapt.images import Images

EPILOG = """\b
Examples:
    dovit-adapt --ckpt model.pth --images photos/ --out adapted.safetensors
    dovit-adapt --ckpt dinov2-small/ --head linear_head.pth --images photos/ \\
        --limit 300 --threshold 0.95,0.97,0.99,0.99 --out adapted.safetensors
    dovit-adapt --ckpt model.pth --data cityscapes:/data/cityscapes \\
        --out adapted.safetensors
"""
# Measured on CamVid (docs/results/camvid.md): a token that stops early saves much, so the first decisions may be less sure.
DEFAULT_THRESHOLDS = 0.9, 0.95, 0.98  # of the first decision, the second, and all others
DEFAULT_CELLS = 4  # side in patches
DEFAULT_KERNEL = 7  # in patches


def command(
    ckpt: Annotated[Path, typer.Option(metavar="PATH", help="A segmenter that dovit-export reads. It is not changed.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The model with token pass: .safetensors or .pth, in a folder that is made if missing."
        ),
    ],
    images: Annotated[list[str] | None, typer.Option(metavar="PATH", help=f"{UNLABELLED}. This or --data.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help=f"Labelled data: the heads learn the labels of its train split. {DATA_LAYOUTS} This or --images.",
        ),
    ] = None,
    head: Head = None,
    reduce_zero_label: ReduceZeroLabel = None,
    recursive: Recursive = False,
    limit: Annotated[int, limit_option(least=2)] = 300,
    decision_layers: Annotated[str | None, decision_layers_option("2,4,6,8 of 12, and the like")] = None,
    threshold: Annotated[list[str] | None, threshold_option("0.9, 0.95, then 0.98")] = None,
    hidden: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=1 << 15,
            help="Channels of a second part of the lens, of two layers; 0: affine alone. Default: a third of the model's.",
        ),
    ] = None,
    kernel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=7,
            help="Rows and columns of patches that the second part sees around a token. Default: 7, or 1 if --hidden is 0.",
        ),
    ] = None,
    merge: Annotated[bool, merge_option("they are not")] = False,
    merge_cells: Annotated[int | None, merge_cells_option("4; none with --merge, and for an EoMT")] = None,
    correct: Annotated[
        bool | None,
        typer.Option(
            "--correct/--no-correct",
            help="Correct the tokens that stay after each block. Default: where the decoder reads the last layer alone.",
        ),
    ] = None,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Refine the full sequence in front of the decoder, with the lenses' channels and kernel. The model is then only "
            "nearly the dense one where no token stops. Default: no.",
        ),
    ] = False,
    steps: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=1_000_000, help="Steps of distillation for each lens, and for the refinement."
        ),
    ] = 2000,
    joint_steps: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=1_000_000,
            help="Steps of 4 images for all decisions together, through the layers; 0: none.",
        ),
    ] = 150,
    lr: Annotated[float, typer.Option(metavar="N", min=1e-9, max=1, help="Learning rate of distillation.")] = 3e-4,
    seed: Annotated[int, seed_option("the order of images and tokens")] = 0,
    as_json: Json = False,
) -> None:
    """Give a frozen segmenter token pass: heads, lenses and corrections, fitted to its own output on images without
    labels; with --data the heads to labels."""
    try:
        from dovit.export.checkpoints import ReadOptions, check_space, load_model, save_model
        from dovit.training.adapt.features import check_space_of_features
        from dovit.training.adapt.run import Adaptation, adapt, adapted_config
        from dovit.training.start import check_merging
    except ModuleNotFoundError as error:
        raise UsageError(f"dovit-adapt needs the package {error.name}: pip install 'dovit[training]'") from None

    if out.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"--out {out}: name a .safetensors or .pth file")
    refuse_checkpoints(out, "--out", {"--ckpt": ckpt, "--head": head})
    check_merging(merge=merge, merge_cells=merge_cells)
    chosen = parse_numbers(decision_layers, int, "--decision-layers")
    given = parse_thresholds(threshold)
    found = _find_files(images, data, recursive=recursive, reduce_zero_label=reduce_zero_label)
    loaded = load_model(ckpt, ReadOptions(dense=True, head=head))
    model = loaded.model.requires_grad_(False)
    samples = _choose(found, data, model.config, limit, reduce_zero_label)
    layers = chosen or default_layers(model.config)
    first, second, *further = DEFAULT_THRESHOLDS
    own = (first, second, *further * len(layers))[: len(layers)]
    thresholds = ReadOptions(thresholds=given).thresholds_for(len(layers), own)
    last_alone = not (model.config.taps or model.config.queries)
    if not last_alone and (correct or refine):
        option, what = ("--correct", "corrections") if correct else ("--refine", "a refinement")
        read = f"layers {', '.join(map(str, model.config.taps))}" if model.config.taps else "queries, as an EoMT's does"
        raise UsageError(
            f"{option}: {what} would serve the last layer alone, and the decoder of {ckpt} also reads {read}: leave it out"
        )
    if correct is None:
        correct = last_alone
    if merge_cells is None:
        merge_cells = 0 if merge or model.config.queries else DEFAULT_CELLS
    elif merge_cells and model.config.queries:
        raise UsageError(
            f"--merge-cells {merge_cells}: stopped tokens of an EoMT cannot be merged by cell, since its queries attend to the "
            f"patch tokens: leave it out"
        )
    if hidden is None:
        hidden = max(8, model.config.backbone.embed_dim // 24 * 8)  # a third, in multiples that matrix units take
    if kernel is None:
        kernel = DEFAULT_KERNEL if hidden else 1
    if kernel > 1 and not hidden:
        raise UsageError(
            f"--kernel {kernel} with --hidden 0: an affine map sees each token by itself; give --hidden channels too"
        )
    if not kernel % 2:
        raise UsageError(f"--kernel {kernel}: give an odd number, so that the token is in the middle")
    if refine and not hidden:
        raise UsageError("--refine with --hidden 0: a refinement needs channels; give --hidden channels too")
    how = Adaptation(
        layers, thresholds, hidden, kernel, steps, lr, seed, merge, correct, merge_cells, joint_steps, refine
    )
    check_decisions(model.config, layers, thresholds)
    # refuse before the work begins
    config, scratch = adapted_config(model.config, how), real_path(out).parent
    with made_folders([scratch], "--out"):
        check_output(out, "--out")
        check_space_of_features(config, samples, scratch)
        check_space(config, out)
        if loaded.left_out:
            print_line(
                error_console(),
                f"dovit-adapt: note: {ckpt} has token pass already ({loaded.left_out}), which is left out: {out} gets decisions "
                f"of its own, fitted to the model without",
            )
        with stage_progress() as progress:
            model, quality = adapt(model, samples, how, scratch, progress)
        save_model(model, out)
    if quality.macs >= 1:
        print_line(
            error_console(),
            f"dovit-adapt: note: on the images held out the model computes {quality.macs:.1%} of the MACs: too few tokens stop; "
            f"lower --threshold, or give more images",
        )
    if as_json:
        # an agreement of no tokens is NaN, which JSON does not know
        decisions = [{k: None if v != v else v for k, v in asdict(d).items()} for d in quality.decisions]
        about = {"out": str(out), "images": len(samples), "labelled": samples.labelled}
        print(json.dumps({**about, **asdict(quality), "decisions": decisions}))
        return
    source = "their labels say" if samples.labelled else "the model says"
    table = new_table("after layer", "ξ", "confident\nof those left", f"of these as\n{source}")
    for decision, xi in zip(quality.decisions, thresholds, strict=True):
        table.add_row(
            str(decision.layer),
            f"{xi:g}",
            f"{decision.confident:.1%}",
            "–" if decision.agreement != decision.agreement else f"{decision.agreement:.2%}",
        )
    screen = output_console()
    print_table(screen, "Images held out of the fit", table)
    print_line(
        screen,
        f"with {quality.macs:.1%} of the MACs (the paper's count), KL {quality.divergence:.4f} to the model without token pass",
    )
    print_line(screen, f"{out}: fitted to {len(samples)} images; export it with dovit-export --ckpt {out}")


def _find_files(
    images: list[str] | None, data: str | None, *, recursive: bool, reduce_zero_label: bool | None
) -> list[Path]:
    """The files that --images names, none where there is --data. Raises UsageError unless one of the two is given."""
    if (images is None) == (data is None):
        raise UsageError("give --images, files without labels, or --data, a data set with labels: one of the two")
    if data is not None:
        refuse_unused({"--recursive": recursive}, "it is about folders of --images")
        return []
    option = "--reduce-zero-label" if reduce_zero_label else "--keep-zero-label"
    refuse_unused({option: reduce_zero_label is not None}, "--images have no labels")
    return [one.file for one in find_inputs(images or [], recursive=recursive, must_exist=True)]


def _choose(
    files: Sequence[Path], data: str | None, config: ModelConfig, limit: int, reduce_zero_label: bool | None
) -> Images:
    """At most `limit` of `files`, or of the images in the train split of `data`. Raises UsageError for fewer than two."""
    from dovit.training.adapt.images import Files, Labelled

    images: Images
    if data is None:
        images = Files(sample_evenly(files, limit))
        if len(images) < 2:
            read_image(files[0])  # one that cannot be read is the nearer cause
    else:
        dataset = open_data(
            data, "train", size=config.image_size, classes=config.classes, reduce_zero_label=reduce_zero_label
        )
        images = Labelled(dataset, sample_evenly(range(len(dataset)), limit))
    if len(images) < 2:
        option = "--images" if data is None else "--data"
        raise UsageError(f"{option}: {len(images)} image; give two or more, one of them to check the fit with")
    return images


def default_layers(config: ModelConfig) -> tuple[int, ...]:
    """Decisions after one to four sixths of the layers, counted from 1: 2, 4, 6 and 8 of 12."""
    from dovit.export.checkpoints.options import default_decision_layers

    depth = config.backbone.depth
    sixths = sorted({depth * k // 6 for k in range(1, 5)} - {0})
    return default_decision_layers(sixths, depth, config.joining_layer)


def check_decisions(config: ModelConfig, layers: Sequence[int], thresholds: Sequence[float]) -> None:
    """Raise UsageError for decisions that this model cannot have, or that would stop every token, or none."""
    from dovit.export.checkpoints.options import check_decision_layers

    check_decision_layers(layers, config.backbone.depth, config.joining_layer)
    if all(xi == 1 for xi in thresholds):
        raise UsageError(
            "--threshold 1 would stop no token, and the model would only become slower; give a threshold below 1 for one of the "
            "decisions at least, as 0.98"
        )
    for xi in thresholds:
        if xi < 1 / config.classes:
            raise UsageError(
                f"--threshold {xi:g} would stop every token: the likeliest of {config.classes} classes has a probability of "
                f"{1 / config.classes:.3g} or more; give thresholds close to 1, as 0.9"
            )


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-adapt", epilog=EPILOG)
