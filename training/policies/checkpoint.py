"""A DynamicViT's own file: `.safetensors` with configuration and ratio in its metadata under `dynamicvit`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from dovit.export.checkpoints.foreign import DYNAMIC_VIT
from dovit.export.checkpoints.own import write_safetensors
from dovit.export.model import ModelConfig
from dovit.runtime.errors import DovitError, describe_validation
from dovit.runtime.files import parse_json
from dovit.training.policies.dynamic_vit import DynamicViT


def save_dynamic_vit(model: DynamicViT, path: Path, *, half: bool = False) -> None:
    """Write `model` to `path`, whole or not at all; with `half` its weights as float16."""
    about = {"ratio": model.ratio, "config": model.config.model_dump(mode="json")}
    write_safetensors(model.state_dict(), {DYNAMIC_VIT: json.dumps(about)}, path, half=half)


def is_dynamic_vit(path: Path) -> bool:
    """Whether `path` is such a file."""
    try:
        with safe_open(path, "pt") as file:
            return DYNAMIC_VIT in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return False


def load_dynamic_vit(path: Path) -> DynamicViT:
    """The model in evaluation mode, float32. Raises DovitError where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            about = parse_json(file.metadata()[DYNAMIC_VIT])
        config, ratio = ModelConfig.model_validate(about["config"]), about["ratio"]
        if type(ratio) not in (int, float) or not 0 < ratio <= 1:  # a bool is an int as well
            raise ValueError(f"its ratio is {ratio!r}")
        model = DynamicViT(config, ratio)
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except MemoryError:
        raise
    except ValidationError as error:
        raise DovitError(f"{path}: not a model of this dovit: {describe_validation(error)}; train it again") from None
    except Exception as error:  # what is not as it was written shows in any of these calls
        raise DovitError(f"{path}: damaged, or not of this dovit; train it again or copy it again") from error
    return model.eval()
