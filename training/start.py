"""The model that training starts from: of a checkpoint, or of a configuration with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from dovit.evaluation.data import Dataset
from dovit.export.model import DoViT, ModelConfig
from dovit.runtime.errors import DovitError, UsageError, describe_validation
from dovit.runtime.files import parse_json, read_text


def read_config(path: Path) -> ModelConfig:
    """A model's configuration from a JSON file. Raises DovitError with the first thing that is wrong in it."""
    try:
        return ModelConfig.model_validate(parse_json(read_text(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise DovitError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise DovitError(f"{path}: is not JSON (line {error.lineno}: {error.msg})") from None
    except ValidationError as error:
        raise DovitError(f"{path}: is no model's configuration: {describe_validation(error)}") from None
    except ValueError as error:
        raise DovitError(f"{path}: is no model's configuration ({error})") from None


def check_merging(*, merge: bool | None, merge_cells: int | None) -> None:
    """Raise UsageError where these two options contradict each other."""
    if merge and merge_cells:
        raise UsageError(
            "stopped tokens are merged into the class token (--merge) or by cell (--merge-cells): give one of them"
        )


def model_with_random_weights(config: ModelConfig) -> DoViT:
    """A model with random weights, as ViTs are initialised: normal with σ = 0.02, zero biases."""
    model = DoViT(config)
    for module in model.backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for parameter in (model.backbone.pos_embed, model.backbone.prefix):
        if parameter is not None:
            nn.init.trunc_normal_(parameter, std=0.02)
    return model


def changed_config(config: ModelConfig, changes: dict[str, Any], whose: str) -> ModelConfig:
    """`config` with `changes`. Raises DovitError, naming `whose` it is, where a model cannot be so."""
    try:
        return ModelConfig.model_validate({**config.model_dump(), **changes})
    except ValidationError as error:
        raise DovitError(f"{whose} cannot be changed so: {describe_validation(error)}") from None


def with_config(model: DoViT, changes: dict[str, Any]) -> DoViT:
    """The model with `changes` of its configuration that leave the weights as they are.

    Raises DovitError where a model cannot be so."""
    changed = DoViT(changed_config(model.config, changes, "this model"))
    changed.load_state_dict(model.state_dict())
    return changed


def with_classes_of(model: DoViT, dataset: Dataset) -> DoViT:
    """`model` with the class names and colours of the data, which bundles carry.

    Raises DovitError where the two differ in the number of classes.
    """
    classes = model.config.classes
    if dataset.classes is not None and dataset.classes != classes:
        raise DovitError(
            f"the model has {classes} classes and the data {dataset.classes}: start from a backbone's checkpoint, "
            "which gets a new decoder, or give data of the model's classes"
        )
    model.config = model.config.model_copy(
        update={
            "class_names": dataset.class_names or model.config.class_names,
            "palette": dataset.palette or model.config.palette,
        }
    )
    return model


@torch.no_grad()
def frozen_copy(model: DoViT) -> DoViT:
    """A copy of `model` in evaluation mode, for a teacher that training does not change."""
    twin = DoViT(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()
