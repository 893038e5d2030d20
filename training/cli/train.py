"""`dovit-train`."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from dovit.evaluation.cli.options import Data, ReduceZeroLabel
from dovit.export.cli_options import Arch, Classes, Head, ImageSize, decision_layers_option, read_fields
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import threshold_option
from dovit.runtime.cli.unused import refuse_unused
from dovit.runtime.cli.values import parse_numbers
from dovit.runtime.errors import UsageError
from dovit.runtime.files import check_folder_name
from dovit.runtime.machine import cpu_multiplies_in_bf16
from dovit.training.cli.options import merge_cells_option, merge_option, refuse_checkpoints, seed_option

# where an option's name is not that of its field of Settings
OPTIONS = {"optimiser": "optimizer"}
EPILOG = """\b
Examples:
    dovit-train --ckpt setr.pth --data cityscapes:/data/cityscapes \\
        --out runs/dovit --heads-only --steps 2000
    dovit-train --ckpt setr.pth --data /data/ade20k --out runs/dovit \\
        --lr 0.001 --batch 2 --threshold 0.97
    torchrun --nproc-per-node 8 -m dovit.training.cli.train --ckpt setr.pth \\
        --data /data/cityscapes --out runs/dovit
    dovit-train --new model.json --data streets --out runs/dense --dense \\
        --optimizer adamw --lr 0.001
"""


class Optimizer(StrEnum):
    """Optimisers."""

    SGD = "sgd"
    ADAMW = "adamw"


class Policy(StrEnum):
    """Who decides which tokens stay."""

    CONFIDENCE = "confidence"
    DYNAMICVIT = "dynamicvit"


class Precision(StrEnum):
    """Of the forward pass; weights and their updates are float32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def command(
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where model.safetensors, the state and the log go; made if missing.")
    ],
    ckpt: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Start from this: what dovit-export reads, or a backbone (DINOv2, DINOv3, timm, DeiT)."
        ),
    ] = None,
    head: Head = None,
    new: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of --ckpt: a configuration (JSON) for a model with fresh weights."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    heads_only: Annotated[
        bool,
        typer.Option(
            "--heads-only",
            help="Train the decision heads, with their lenses, corrections and refinement, and nothing else.",
        ),
    ] = False,
    freeze_backbone: Annotated[
        bool,
        typer.Option(
            "--freeze-backbone",
            help="Leave the backbone as it is, and train the decoder and whatever else there is. With --dense and the decoder "
            "segmenter-linear it is a linear probe.",
        ),
    ] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Train the plain segmenter, without decisions.")] = False,
    policy: Annotated[
        Policy,
        typer.Option(
            metavar="NAME", help="Who decides which tokens stay: confidence, or dynamicvit, the paper's baseline."
        ),
    ] = Policy.CONFIDENCE,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=0.01, max=1, help="dynamicvit: share of tokens kept at each stage. Default: 0.9."
        ),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Checkpoint of the teacher. Default: that of --ckpt.")
    ] = None,
    threshold: Annotated[
        list[str] | None, threshold_option("the checkpoint's", ", in training and in the trained model")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="Weight of the decision heads' loss. Default: 1.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=0, help="Weight of self-distillation. Default: 0.4 where there is a teacher to follow."
        ),
    ] = None,
    merge: Annotated[bool | None, merge_option("as --ckpt does")] = None,
    merge_cells: Annotated[int | None, merge_cells_option("as --ckpt does")] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps in all.")] = 80_000,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images a step and process.")] = 2,
    optimizer: Annotated[Optimizer, typer.Option(metavar="NAME", help="sgd or adamw.")] = Optimizer.SGD,
    lr: Annotated[float, typer.Option(metavar="N", help="Learning rate.")] = 0.001,
    min_lr: Annotated[float, typer.Option(metavar="N", min=0, help="Learning rate at the end.")] = 0.0,
    power: Annotated[float, typer.Option(metavar="N", min=0, help="Power of the poly schedule.")] = 0.9,
    warmup: Annotated[int, typer.Option(metavar="N", min=0, help="Steps of linear warm-up.")] = 0,
    weight_decay: Annotated[float, typer.Option(metavar="N", min=0, help="Weight decay.")] = 0.0,
    head_lr_mult: Annotated[
        float, typer.Option(metavar="N", help="Decoder and heads learn so many times as fast.")
    ] = 1.0,
    clip: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="Largest norm of the gradient. Default: no limit.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            metavar="TYPE",
            help="fp32, bf16, or auto: bf16 on a GPU and on a CPU that multiplies in it (AMX, AVX512-BF16), otherwise fp32.",
        ),
    ] = Precision.AUTO,
    label_stride: Annotated[int, typer.Option(metavar="N", min=1, help="See labels at every so many pixels only.")] = 1,
    scale_range: Annotated[str, typer.Option(metavar="N,N", help="Random resize between these factors.")] = "0.5,2.0",
    photometric: Annotated[
        bool, typer.Option("--photometric/--no-photometric", help="Change colours at random.")
    ] = True,
    val: Annotated[
        str | None, typer.Option(metavar="DATA", help="Data to validate on, or none. Default: the val split of --data.")
    ] = None,
    val_every: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Validate after every so many steps, and at the end; 0: only at the end."
        ),
    ] = 0,
    val_limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most so many images to validate on. Default: all.")
    ] = None,
    save_every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Save the state after every so many steps.")
    ] = 1000,
    log_every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Write a line to OUT/log.jsonl every so many steps.")
    ] = 10,
    fp16_weights: Annotated[bool, typer.Option("--fp16-weights", help="Store the model's weights as float16.")] = False,
    seed: Annotated[int, seed_option("weights, data order and augmentation")] = 0,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu or cuda. Default: a GPU if there is one.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=0, max=256, help="Threads that prepare images.")] = 2,
    arch: Arch = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    decision_layers: Annotated[
        str | None, decision_layers_option("the checkpoint's, or the paper's, 3,6,9 of 12")
    ] = None,
    decoder_layers: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Layers whose outputs the decoder of a backbone alone reads, from 1, as 3,6,9,12; for segmenter-linear and "
            "setr-mla. Default: the last, and for setr-mla four at even intervals.",
        ),
    ] = None,
    head_norm: Annotated[
        bool | None,
        typer.Option(
            "--head-norm/--no-head-norm",
            help="Whether decision heads that are added begin with a LayerNorm, or are a convolution alone. Default: they do.",
        ),
    ] = None,
    reduce_zero_label: ReduceZeroLabel = None,
) -> None:
    """Train a segmenter with token pass, by the paper's pipeline. The model goes to OUT/model.safetensors."""
    try:
        from dovit.training.log import read_scores
        from dovit.training.run import MODEL_NAME, StartingPoint, run
        from dovit.training.settings import Settings
        from dovit.training.start import check_merging
    except ModuleNotFoundError as error:
        raise UsageError(f"dovit-train needs the package {error.name}: pip install 'dovit[training]'") from None

    if (ckpt is None) == (new is None):
        raise UsageError("give either --ckpt, a checkpoint to start from, or --new, a configuration")
    of_heads = {
        "--threshold": threshold is not None,
        "--alpha": alpha is not None,
        "--merge" if merge else "--no-merge": merge is not None,
        "--merge-cells": merge_cells is not None,
        "--head-norm" if head_norm else "--no-head-norm": head_norm is not None,
    }
    if dense:
        of_decisions = {
            "--heads-only": heads_only,
            "--policy": policy is Policy.DYNAMICVIT,
            "--ratio": ratio is not None,
            "--decision-layers": decision_layers is not None,
        }
        refuse_unused(of_decisions | of_heads, "--dense trains a model without decisions")
    elif policy is Policy.DYNAMICVIT:
        refuse_unused(of_heads, "--policy dynamicvit has prediction modules in place of decision heads, ξ and merging")
    else:
        refuse_unused(
            {"--ratio": ratio is not None}, "the confidence decides how many tokens stay, not --policy dynamicvit"
        )
    distils = {"--teacher": teacher is not None, "--beta": bool(beta)}
    if heads_only:
        refuse_unused(distils, "--heads-only leaves the segmenter as it is, and so without self-distillation")
    elif beta == 0:
        refuse_unused({"--teacher": teacher is not None}, "--beta 0 leaves self-distillation out")
    elif beta and teacher is None and (dense or new is not None):
        raise UsageError(
            f"--beta: {'--dense' if dense else '--new'} has no teacher to follow by itself: give --teacher, or leave it out"
        )
    if val == "none":
        refuse_unused(
            {"--val-every": val_every > 0, "--val-limit": val_limit is not None}, "--val none validates nothing"
        )
    if heads_only and freeze_backbone:
        raise UsageError("--heads-only leaves the backbone as it is already, and the decoder too: give one of the two")
    if new is not None:
        given = {
            "--arch": arch,
            "--head": head,
            "--classes": classes,
            "--decision-layers": decision_layers,
            "--decoder-layers": decoder_layers,
            "--no-head-norm" if head_norm is False else "--head-norm": head_norm,
        }
        option = next((name for name, value in given.items() if value is not None), None)
        if option is not None:
            raise UsageError(
                f"{option} is for --ckpt: the configuration that --new names, {new}, says it; change it there"
            )
        refuse_unused(
            {"--heads-only": heads_only, "--freeze-backbone": freeze_backbone},
            "--new begins with random weights, and a backbone of those would stay as it is",
        )
    check_merging(merge=merge, merge_cells=merge_cells)
    check_folder_name(out, "--out")
    checkpoints = {"--ckpt": ckpt, "--head": head, "--teacher": teacher}
    refuse_checkpoints(out / MODEL_NAME, "--out", checkpoints, "give another folder")
    scales = parse_numbers(scale_range, float, "--scale-range")
    if scales is None or len(scales) != 2:
        raise UsageError(f"--scale-range {scale_range}: give two factors, as 0.5,2.0")
    if not all(0 < scale < math.inf for scale in scales):
        raise UsageError(f"--scale-range {scale_range}: give factors above 0, as 0.5,2.0")
    if scales[0] > scales[1]:
        raise UsageError(f"--scale-range {scale_range}: give the smaller factor first, as 0.5,2.0")
    start = StartingPoint(
        checkpoint=ckpt,
        config=new,
        teacher=teacher,
        merge=merge,
        merge_cells=merge_cells,
        read=read_fields(
            arch=arch,
            head=head,
            classes=classes,
            image_size=image_size,
            decision_layers=decision_layers,
            decoder_layers=decoder_layers,
            head_norm=head_norm,
            threshold=threshold,
            dense=dense,
        ),
    )
    numbers: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "policy": policy.value,
        "heads_only": heads_only,
        "freeze_backbone": freeze_backbone,
        "optimiser": optimizer.value,
        "lr": lr,
        "min_lr": min_lr,
        "power": power,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "head_lr_mult": head_lr_mult,
        "clip": clip,
        "label_stride": label_stride,
        "ratio_range": scales,
        "photometric": photometric,
    }
    weights = {"ratio": ratio, "alpha": alpha, "beta": 0.0 if heads_only else beta}
    numbers |= {name: value for name, value in weights.items() if value is not None}
    try:
        settings = Settings(**numbers)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = str(wrong["loc"][0])
        option, rule = OPTIONS.get(field, field).replace("_", "-"), wrong["msg"].removeprefix("Input should be ")
        raise UsageError(f"--{option} {wrong['input']}: give a value that is {rule}") from None
    run(
        start,
        lambda gpu: settings.model_copy(update={"precision": _precision(precision, gpu)}),
        data,
        out,
        device=device,
        resume=resume,
        validation=None if val == "none" else val or data,
        validate_every=val_every,
        validate_limit=val_limit,
        validate_always=val is not None or val_every > 0 or val_limit is not None,
        save_every=save_every,
        log_every=log_every,
        workers=workers,
        reduce_zero_label=reduce_zero_label,
        half=fp16_weights,
    )
    if os.environ.get("RANK", "0") == "0":
        scores = read_scores(out, steps - 1)
        score = f"mIoU {scores['mIoU']:.2f}" if "mIoU" in scores else "no validation scores"
        exported = policy is Policy.CONFIDENCE
        following = "export it with dovit-export --ckpt" if exported else "measure it with dovit-eval --ckpt"
        print(f"{out / MODEL_NAME}: trained for {steps} steps, {score}; {following}")


def _precision(asked: Precision, gpu: bool) -> Literal["fp32", "bf16"]:
    if asked is Precision.AUTO:
        return "bf16" if gpu or cpu_multiplies_in_bf16() else "fp32"
    return "bf16" if asked is Precision.BF16 else "fp32"


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-train", epilog=EPILOG)


if __name__ == "__main__":  # as torchrun -m calls it
    main()
