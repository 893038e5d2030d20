"""The training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dovit.evaluation.data import IGNORE, Augmentation, Dataset, batches
from dovit.export.model import DoViT
from dovit.training.log import Log
from dovit.training.objective import Objective
from dovit.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from dovit.training.origin import Origin
from dovit.training.parallel import Process
from dovit.training.resume import STATE_NAME, DivergedError, RunState
from dovit.training.settings import Settings
from dovit.training.stop import GracefulStop

Validate = Callable[[DoViT], dict[str, float]]  # the model in evaluation mode → metrics by name


def train(
    model: DoViT,
    teacher: DoViT | None,
    settings: Settings,
    origin: Origin,
    dataset: Dataset,
    out: Path,
    process: Process,
    *,
    validate: Validate | None = None,
    validate_every: int = 0,
    save_every: int = 1000,
    log_every: int = 10,
    workers: int = 2,
) -> None:
    """Train `model` in place; where OUT/last.pt exists, go on from there, exactly.

    `validate` runs after every `validate_every` steps and after the last. A signal (Ctrl-C, SIGTERM, SIGHUP) lets the step
    under way end, saves the state and raises Interrupted; a second one raises KeyboardInterrupt at once. Of several processes
    all end after the same step, which is one that is logged. Raises DovitError where the loss or a weight is no longer a
    number, of which no state is saved; any other DovitError, such as for a file of the data that cannot be read, after the steps
    before it are saved.
    """
    device = process.device
    _choose_trained(model, settings)
    process.synchronised(model)
    model.to(device)
    optimiser = make_optimiser(model, settings.optimiser, settings.lr, settings.weight_decay, settings.head_lr_mult)
    state = RunState(out, settings, origin, model, optimiser, process)
    start = state.steps
    objective = Objective(model, model.config.thresholds, teacher, settings.alpha, settings.beta, settings.label_stride)
    objective.teacher_to(device)
    wrapped = process.wrap(objective)
    size = model.config.image_size
    red, green, blue = (round(value) for value in model.config.mean)  # a padded pixel is zero once normalised
    augmentation = Augmentation(
        size, ratio_range=settings.ratio_range, photometric=settings.photometric, pad_colour=(red, green, blue)
    )
    source = batches(
        dataset,
        augmentation,
        settings.batch,
        settings.seed,
        start_step=start,
        rank=process.rank,
        world=process.world,
        workers=workers,
    )
    labelled, seen = False, process.world * settings.batch
    whole_turn = start + -(-len(dataset) // seen)  # after this step every image was seen
    checked = partial(_due, settings.steps, validate_every)
    with process.together():
        log = Log(out, settings.steps, start, quiet=not process.is_first)
    with log, GracefulStop(single_process=process.world == 1) as stop, state.kept():

        def validated(step: int) -> None:
            """Validate after `step` steps, whose state is saved."""
            left = f"{out / STATE_NAME} has step {step}, and --resume validates it"
            with process.together():
                if validate and process.is_first:
                    model.eval()
                    with stop.interruptible(left), log.validating():
                        log.write(step - 1, validate(model))

        if (
            validate
            and start
            and checked(start)
            and process.any(process.is_first and not log.has_validation(start - 1))
        ):
            validated(start)  # the run was stopped before it was done
        for step in range(start, settings.steps):
            _training_mode(model, settings.heads_only)
            rate = learning_rate(
                step, settings.steps, settings.lr, warmup=settings.warmup, power=settings.power, min_lr=settings.min_lr
            )
            set_learning_rate(optimiser, rate)
            # what is random in a step is a function of its number, so a resumed run needs no saved generators
            torch.manual_seed(settings.seed * 1_000_003 + step * process.world + process.rank)
            with process.together():
                batch = next(source)
            labelled = labelled or bool((batch[1] != IGNORE).any())
            images, labels = (_to(array, device) for array in batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                losses = wrapped(images, labels.long())
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            if settings.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            state.steps = done = step + 1
            log.advance(done)
            if done == min(whole_turn, settings.steps) and not process.any(labelled) and process.is_first:
                logging.getLogger("dovit").warning(
                    "no pixel of any crop so far is labelled (all are %d, ignored): check the labels and --reduce-zero-label",
                    IGNORE,
                )
            logged = step % log_every == 0 or done == settings.steps
            if logged:
                means = {name: process.mean(value.detach().float()).tolist() for name, value in losses.items()}
                if not np.isfinite(means["loss"]):
                    raise DivergedError(f"the loss is {means['loss']} at step {step}")
                with process.together():
                    log.write(step, {**means, "lr": rate})
            # of several processes all end after the same step
            ending = process.any(stop.requested) if process.world == 1 or logged else False
            check = bool(validate) and checked(done)
            if ending or check or done % save_every == 0 or done == settings.steps:
                state.save()
            if ending and done < settings.steps:
                raise stop.interrupted(f"after {done} of {settings.steps} steps: {out / STATE_NAME} is saved")
            if check:
                validated(done)
    model.eval()


def _due(steps: int, every: int, done: int) -> bool:
    """Whether to validate after `done` steps."""
    return done == steps or bool(every and done % every == 0)


def _choose_trained(model: DoViT, settings: Settings) -> None:
    model.requires_grad_(not settings.heads_only)
    if settings.freeze_backbone:
        model.backbone.requires_grad_(False)
    for part in model.of_token_pass:
        part.requires_grad_(True)


def _training_mode(model: DoViT, heads_only: bool) -> None:
    """A frozen decoder keeps its batch statistics; the backbone has none."""
    model.train(not heads_only)
    for part in model.of_token_pass:
        part.train()


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
