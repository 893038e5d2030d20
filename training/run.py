"""Runs a training: from an initial model, data and settings to OUT/model.safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dovit.evaluation.data import Dataset, NoImagesError, open_data
from dovit.evaluation.data.overlap import count_shared
from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.export.checkpoints.options import BackboneAlone
from dovit.export.model import DoViT, ModelConfig
from dovit.export.model.config import EomtDecoder
from dovit.export.model.dovit import is_of_token_pass
from dovit.runtime.bundle.lock import writer_lock
from dovit.runtime.cli.output import error_console, print_line
from dovit.runtime.errors import DovitError, OutputError, UsageError
from dovit.runtime.files import unwritten
from dovit.runtime.machine import cpu_multiplies_in_bf16
from dovit.training.log import LOG_NAME
from dovit.training.loop import Validate, train
from dovit.training.origin import Data, Origin, Weights
from dovit.training.parallel import process
from dovit.training.policies.checkpoint import save_dynamic_vit
from dovit.training.policies.dynamic_vit import DynamicViT
from dovit.training.resume import STATE_NAME
from dovit.training.settings import Settings
from dovit.training.start import (
    changed_config,
    check_merging,
    frozen_copy,
    model_with_random_weights,
    read_config,
    with_classes_of,
    with_config,
)
from dovit.training.stop import HOW_TO_GO_ON
from dovit.training.torch_segmenter import validate

MODEL_NAME = "model.safetensors"


@dataclass(frozen=True)
class StartingPoint:
    """The initial model of a run: `checkpoint` read with the options `read` (of ReadOptions), or fresh weights by `config`."""

    read: dict[str, Any]
    checkpoint: Path | None = None
    config: Path | None = None
    teacher: Path | None = None
    # how stopped tokens are merged; None: as the checkpoint or the configuration says
    merge: bool | None = None
    merge_cells: int | None = None


def run(
    start: StartingPoint,
    settings_for: Callable[[bool], Settings],
    data: str,
    out: Path,
    *,
    device: str | None = None,
    resume: bool = False,
    validation: str | None = None,
    validate_every: int = 0,
    validate_limit: int | None = None,
    validate_always: bool = False,
    save_every: int = 1000,
    log_every: int = 10,
    workers: int = 2,
    reduce_zero_label: bool | None = None,
    half: bool = False,
) -> None:
    """Train and save, with `half` as float16. `settings_for` gets whether there is a GPU; `validation` is the data whose
    val split is used, if it has one, or in any case with `validate_always`.

    Raises DovitError or UsageError; a run in OUT is never overwritten.
    """
    with process(device) as here, ExitStack() as held:
        settings = settings_for(here.device.type == "cuda")
        with here.together():
            if here.is_first:
                held.enter_context(_prepared(out, resume))
        bf16_on_cpu = settings.precision == "bf16" and here.device.type == "cpu"
        if here.is_first and bf16_on_cpu and not cpu_multiplies_in_bf16():
            print_line(
                error_console(),
                "dovit-train: note: --precision bf16: this CPU has no instructions for it (AVX512-BF16 or AMX), and a step "
                "takes several times as long as in fp32, which --precision auto takes here",
            )
        torch.manual_seed(settings.seed)
        known = _known_before_loading(start)
        if known["image_size"] and settings.label_stride > min(known["image_size"]):
            height, width = known["image_size"]
            raise UsageError(
                f"--label-stride {settings.label_stride} leaves no label of crops of {height}×{width}: give at most "
                f"{min(height, width)}"
            )
        dataset = open_data(
            data, "train", size=known["image_size"], classes=known["classes"], reduce_zero_label=reduce_zero_label
        )
        first, student = _models(start, settings, dataset)
        if isinstance(first.config.decoder, EomtDecoder) and not (
            settings.heads_only and settings.policy == "confidence"
        ):
            raise UsageError(
                "EoMT's decoder is trained by its own project (tue-mps/eomt), with losses of masks; dovit-train gives such a "
                "checkpoint (--ckpt) decision heads: say --heads-only"
            )
        student = with_classes_of(student, dataset)
        check: Validate | None = None
        if validation is not None:
            check = _validation(
                validation,
                student.config,
                validate_limit,
                reduce_zero_label,
                dataset if here.is_first else None,
                required=validate_always,
            )
        train(
            student,
            _teacher(start, settings, first),
            settings,
            _origin(start, dataset, data, here.world),
            dataset,
            out,
            here,
            validate=check,
            validate_every=validate_every,
            save_every=save_every,
            log_every=log_every,
            workers=workers,
        )
        with here.together():
            if here.is_first:
                _save_model(student, out, half)


@contextmanager
def _prepared(out: Path, resume: bool) -> Iterator[None]:
    """OUT as the folder of this run alone. Raises UsageError where it is another's, DovitError where it cannot be written."""
    if not out.exists():
        _check_folder(out, resume)  # before it is made
    with ExitStack() as held:
        try:
            held.enter_context(writer_lock(out, make=True, wait=False, required=False))
        except OSError as error:
            raise unwritten(out, error) from None
        _check_folder(out, resume)
        yield


def _check_folder(out: Path, resume: bool) -> None:
    saved, log = (out / STATE_NAME).exists(), out / LOG_NAME
    if not saved and not (out / MODEL_NAME).exists() and log.exists() and log.stat().st_size:
        raise UsageError(f"{log} is of a run that ended before it saved a state; delete it, or give another --out")
    if resume and not saved:
        raise UsageError(f"{out} holds no run to go on with ({STATE_NAME} is missing); leave --resume out to begin one")
    if not resume:
        if saved:
            raise UsageError(f"{out} holds a run: go on with it by --resume, or give another --out")
        if (model := out / MODEL_NAME).exists():
            raise UsageError(
                f"{model} is of another run, which has no state to go on from; move it away, or give another --out"
            )


def _save_model(model: DoViT, out: Path, half: bool) -> None:
    try:
        if isinstance(model, DynamicViT):
            save_dynamic_vit(model, out / MODEL_NAME, half=half)
        else:
            save_model(model, out / MODEL_NAME, half=half)
    except OutputError as error:
        raise OutputError(f"{error}; {out / STATE_NAME} has all steps: {HOW_TO_GO_ON}") from None


def _known_before_loading(start: StartingPoint) -> dict[str, Any]:
    """What is known of the model before it is made: procedural data need its size, a plain folder its classes."""
    if start.config is not None:
        config = read_config(start.config)
        return {"image_size": start.read["image_size"] or config.image_size, "classes": config.classes}
    assert start.checkpoint is not None
    size, classes = start.read["image_size"], start.read["classes"]
    if size and classes:
        return {"image_size": size, "classes": classes}
    try:
        config = load_model(start.checkpoint, ReadOptions(**start.read, untrained=True)).model.config
        return {"image_size": config.image_size, "classes": config.classes}
    except BackboneAlone:
        if size or classes:
            return {"image_size": size, "classes": classes}
    # a backbone alone needs the classes, which the data may tell; its image size is the same with any number of them
    config = load_model(start.checkpoint, ReadOptions(**start.read | {"classes": 2}, untrained=True)).model.config
    return {"image_size": config.image_size, "classes": None}


def _origin(start: StartingPoint, dataset: Dataset, data: str, processes: int) -> Origin:
    given = {"--ckpt": start.checkpoint, "--head": start.read.get("head"), "--teacher": start.teacher}
    weights = {option: Weights.of(path) for option, path in given.items() if path is not None}
    return Origin(weights=weights, data=Data.of(dataset, data), processes=processes)


def _merging(start: StartingPoint) -> dict[str, Any]:
    """What of a model's configuration the options about merging change. Raises UsageError where they contradict each other."""
    check_merging(merge=start.merge, merge_cells=start.merge_cells)
    changes: dict[str, Any] = {} if start.merge is None else {"merge": start.merge}
    if start.merge_cells is not None:
        changes["merge_cells"] = start.merge_cells
    if start.merge:
        changes["merge_cells"] = 0
    elif start.merge_cells:
        changes["merge"] = False
    return changes


def _models(start: StartingPoint, settings: Settings, dataset: Dataset) -> tuple[DoViT, DoViT]:
    """(the model that the run starts from, the one that is trained)."""
    if start.config is not None:
        config = read_config(start.config)
        changes = _merging(start)
        if start.read["dense"]:
            config = config.without_token_pass
        elif start.read["thresholds"]:
            given = ReadOptions(thresholds=start.read["thresholds"])
            changes["thresholds"] = given.thresholds_for(len(config.decisions))
        if start.read["image_size"]:
            changes["image_size"] = start.read["image_size"]
        first = model_with_random_weights(changed_config(config, changes, str(start.config)))
    else:
        assert start.checkpoint is not None
        read = {**start.read, "classes": start.read["classes"] or dataset.classes}
        loaded = load_model(start.checkpoint, ReadOptions(**read, untrained=True))
        if loaded.is_new and settings.heads_only:
            raise UsageError(
                f"--heads-only: {start.checkpoint} is a backbone without a decoder, which would stay as it was initialised: "
                f"train the whole first, or give --head its linear head"
            )
        first, norm = loaded.model, read["head_norm"]
        if norm is not None and any(head.norm != norm for head in first.config.decisions):
            raise UsageError(
                f"--{'' if norm else 'no-'}head-norm is for decision heads that are added, and {start.checkpoint} has its own, "
                f"{'without' if norm else 'with'} one: leave it out"
            )
        if changes := _merging(start):
            first = with_config(first, changes)
    if settings.policy == "confidence":
        return first, frozen_copy(first)
    # its prediction modules stand in the place of decision heads and of what goes with them
    decisions = tuple(head.model_copy(update={"lens": None, "correction": None}) for head in first.config.decisions)
    changes = {"merge": False, "merge_cells": 0, "decisions": decisions, "refinement": None}
    student = DynamicViT(first.config.model_copy(update=changes), settings.ratio)
    weights = {name: value for name, value in first.state_dict().items() if not is_of_token_pass(name)}
    student.load_state_dict(weights, strict=False)
    return first, student


def _teacher(start: StartingPoint, settings: Settings, first: DoViT) -> DoViT | None:
    """The segmenter that self-distillation follows: the one given, or what a run from a checkpoint started from."""
    if settings.beta == 0 or settings.heads_only:
        return None
    if start.teacher is not None:
        teacher = load_model(start.teacher, ReadOptions(image_size=first.config.image_size, untrained=True)).model
        if isinstance(teacher.config.decoder, EomtDecoder):
            raise UsageError(
                f"--teacher {start.teacher} is an EoMT, whose output is sums of probabilities, and self-distillation takes "
                f"logits: give a segmenter with another decoder"
            )
        if teacher.config.classes != first.config.classes:
            raise UsageError(
                f"--teacher {start.teacher} has {teacher.config.classes} classes, the model {first.config.classes}"
            )
        return frozen_copy(teacher)
    if start.checkpoint is None or start.read["dense"]:
        return None  # nothing to learn from: fresh weights, or a dense model that would be its own teacher
    return first.eval()


def _validation(
    spec: str,
    config: ModelConfig,
    limit: int | None,
    reduce_zero_label: bool | None,
    trained_on: Dataset | None,
    *,
    required: bool,
) -> Validate | None:
    """`trained_on`: for a note where validation would use the same images."""
    try:
        dataset = open_data(
            spec, "val", size=config.image_size, classes=config.classes, reduce_zero_label=reduce_zero_label
        )
    except NoImagesError:
        if required:
            raise
        return None  # data to train on need not have a part to validate on
    except DovitError as error:
        if required:
            raise
        raise type(error)(f"{error}; or train without validation: --val none") from None
    shared = count_shared(trained_on, dataset) if trained_on is not None else 0
    if shared:
        print_line(
            error_console(),
            f"dovit-train: note: {shared} of the {len(dataset)} images to validate on are trained on as well, so mIoU says "
            "little about other images; give others by --val",
        )
    return lambda model: validate(model, dataset, limit)
