"""Saves and loads the state of a run, from which training continues with identical results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import atomic_write, check_regular
from dovit.training.settings import Settings

STATE_NAME = "last.pt"


def save_state(out: Path, step: int, settings: Settings, model: DoViT, optimiser: torch.optim.Optimizer) -> None:
    """Write OUT/last.pt, after `step` steps, whole or not at all. Random numbers need no saving: they are a function of
    seed and step."""
    path = out / STATE_NAME
    content = {
        "step": step,
        "settings": settings.model_dump(mode="json"),
        # what the model is beside its weights, such as how it merges stopped tokens
        "config": model.config.model_dump(mode="json"),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    try:
        with atomic_write(path) as part:
            torch.save(content, part)
    except RuntimeError as error:  # torch raises this for the system's errors
        raise DovitError(f"{path}: cannot be written ({error}); go on with --resume when it can") from None


def load_state(out: Path, settings: Settings, model: DoViT, optimiser: torch.optim.Optimizer) -> int:
    """Bring model and optimiser to where OUT/last.pt left them, and return how many steps that is; 0 without such a file.

    Raises UsageError where it belongs to a run with other settings, DovitError where it cannot be read.
    """
    path = out / STATE_NAME
    if not path.exists():
        return 0
    try:
        check_regular(path.stat(), path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved = Settings.model_validate(content["settings"])
        other = settings.differences(saved)
        given, stored = model.config.model_dump(mode="json"), content.get("config")
        if stored is not None:  # earlier versions did not store it
            other += sorted(key for key in given.keys() | stored.keys() if given.get(key) != stored.get(key))
        if other:
            # versions before the norm added heads without one
            plain = "decisions" in other and not any(head["norm"] for head in stored["decisions"])
            hint = " (its decision heads have no norm: --no-head-norm)" if plain else ""
            raise UsageError(
                f"{path} is of a run with other settings ({', '.join(other)}): give the same{hint}, or another --out"
            )
        step = content["step"]
        if type(step) is not int or not 0 < step <= settings.steps:
            raise ValueError(f"step {step} of {settings.steps}")
        own = _groups(optimiser)
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        _check_optimiser(optimiser, own)
        return step
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # torch, pickle and zipfile have no common base for what they make of a damaged file
        raise DovitError(
            f"{path}: not the state of a run of this model, or damaged ({_first_line(error)}); delete it to begin anew, or give "
            "another --out"
        ) from None


def _groups(optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """An optimiser's parameter groups, which the run's settings determine, without the step's learning rate."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimiser.param_groups
    ]


def _check_optimiser(optimiser: torch.optim.Optimizer, own: list[dict[str, Any]]) -> None:
    """Raises ValueError where what was loaded does not fit the parameters: torch takes anything, and fails in the step."""
    if _groups(optimiser) != own:
        raise ValueError("the optimiser's groups are other ones")
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            for name, value in optimiser.state.get(parameter, {}).items():
                fits = value is None or (isinstance(value, Tensor) and value.layout == torch.strided)
                shape = () if name == "step" else parameter.shape
                if not fits or (value is not None and (value.shape != shape or value.dtype != torch.float32)):
                    raise ValueError(f"the optimiser's {name} does not fit a parameter of {list(parameter.shape)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
