"""From a frozen segmenter to one with token pass: decisions with lenses and heads, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dovit.export.model import DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import CorrectionConfig, LensConfig, RefinementConfig
from dovit.export.model.lens import Correction, Lens
from dovit.export.model.token_pass import TokenState, reconstruct
from dovit.runtime.errors import DovitError, describe_validation
from dovit.runtime.progress import Progress
from dovit.training.adapt.features import compute_features
from dovit.training.adapt.fit import check_left, distil, fit_correction, fit_head, fit_lens, tokens_through
from dovit.training.adapt.images import Images
from dovit.training.adapt.joint import Quality, distil_together, judge
from dovit.training.adapt.states import States, correct, pass_decision

REFINEMENT_LR = 3.0  # times that of lenses, which begin at the ridge regression's solution
HELD_OUT = 10  # one image of so many is kept for temperatures and for the report


@dataclass(frozen=True)
class Adaptation:
    """How to adapt. `layers` count from 1, `thresholds` are ξ of each; `hidden`: channels of the lenses' second part, 0 for
    none; `kernel`: rows and columns of patches that it sees, 1 for a token by itself. `merge`: merging into the class token,
    which the layers of a frozen model have never seen; `merge_cells`: side of the cells whose stopped tokens are merged, 0 for
    none; `correct`: whether decisions get a correction of the next block; `refine`: whether the full sequence gets a refinement,
    with the channels and the kernel of the lenses (both for decoders of the last layer alone); `steps`: of distillation for each
    lens, and for the refinement; `joint_steps`: of all decisions together, when each is fitted."""

    layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    hidden: int = 0
    kernel: int = 1
    steps: int = 500
    lr: float = 3e-4
    seed: int = 0
    merge: bool = False
    correct: bool = True
    merge_cells: int = 0
    joint_steps: int = 0
    refine: bool = False


def adapted_config(config: ModelConfig, how: Adaptation) -> ModelConfig:
    """`config` with decisions after `how.layers`, each with a lens and a linear head behind a norm.

    Raises DovitError where the decoder does not go with what `how` asks for."""
    try:
        heads = tuple(
            HeadConfig(
                layer=layer,
                norm=True,
                norm_eps=config.backbone.norm_eps,
                lens=LensConfig(hidden=how.hidden, kernel=how.kernel),
                correction=CorrectionConfig() if how.correct else None,
            )
            for layer in how.layers
        )
        return ModelConfig.model_validate(
            {
                **config.model_dump(),
                "decisions": heads,
                "thresholds": how.thresholds,
                "merge": how.merge,
                "merge_cells": how.merge_cells,
                "refinement": RefinementConfig(hidden=how.hidden, kernel=how.kernel) if how.refine else None,
            }
        )
    except ValidationError as error:
        raise DovitError(f"this model cannot be adapted: {describe_validation(error)}") from None


def adapt(dense: DoViT, images: Images, how: Adaptation, scratch: Path, progress: Progress) -> tuple[DoViT, Quality]:
    """`dense` with decisions that were fitted to its own output on `images`, or their heads to the labels where these have some,
    and how it does on one in ten of them.

    Features lie in a folder within `scratch` meanwhile: `check_space_of_features` says how large. Raises DovitError."""
    if len(images) < 2:
        raise DovitError(
            f"{len(images)} image: give two or more, one of them to check the fit with; some hundred serve well"
        )
    config = adapted_config(dense.config, how)
    torch.manual_seed(how.seed)  # lenses begin at random
    model = DoViT(config).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    last = config.backbone.depth
    generator = torch.Generator().manual_seed(how.seed)
    order = torch.randperm(len(images), generator=generator).tolist()
    count = max(1, len(images) // HELD_OUT)
    held_out, fitted = sorted(order[:count]), sorted(order[count:])
    with TemporaryDirectory(dir=scratch, prefix=".dovit-adapt-") as folder:
        states = States(Path(folder))
        features = compute_features(model, images, Path(folder), progress, states)
        every = range(len(images))

        def train(module: nn.Module, run: Callable[[TokenState], Tensor], what: str, lr: float = how.lr) -> None:
            module.requires_grad_(True)
            distil(
                model,
                run,
                list(module.parameters()),
                states,
                features,
                fitted,
                steps=how.steps,
                lr=lr,
                generator=generator,
                progress=lambda done: progress(what, done / how.steps),
            )
            module.requires_grad_(False)

        def through_lens(number: int, state: TokenState) -> Tensor:
            return reconstruct(model.through_lens(number, state), config.prefix)

        for number, layer in enumerate(how.layers):
            what = f"decision {number + 1} of {len(how.layers)}, after layer {layer}"
            check_left(model, number, states, features, fitted, "the images")
            check_left(model, number, states, features, held_out, f"the {len(held_out)} of them that are held out")
            lens = cast(Lens, model.lenses[number])
            progress(f"{what}: ridge regression")
            fit_lens(lens, states, features, last, fitted, config.prefix)
            train(lens, partial(through_lens, number), f"{what}: distilling the lens")
            progress(f"{what}: fitting the head")
            fit_head(model, number, states, features, fitted, held_out, generator)
            if number + 1 == len(how.layers) and not (how.correct or how.refine):
                break  # nothing is fitted to what comes behind it
            progress(f"{what}: running the next block on the tokens that stay")
            pass_decision(model, number, states, every)
            if how.correct:
                following = how.layers[number + 1] if number + 1 < len(how.layers) else last
                correction = cast(Correction, model.corrections[number])
                fit_correction(correction, states, features, following, fitted)
                if following == last:
                    train(correction, tokens_through(correction, config.prefix), f"{what}: distilling the correction")
                correct(model, number, states, every)
        if config.refinement is not None:
            train(
                model.refinement,
                lambda state: model.refinement(reconstruct(state, config.prefix)),
                "distilling the refinement",
                REFINEMENT_LR * how.lr,
            )
        if how.joint_steps:
            distil_together(
                model,
                images,
                features,
                fitted,
                steps=how.joint_steps,
                lr=how.lr,
                generator=generator,
                progress=lambda done: progress("training all decisions together", done / how.joint_steps),
            )
        progress(f"checking on {len(held_out)} image{'s' * (len(held_out) != 1)}")
        return model, judge(model, images, features, held_out)
