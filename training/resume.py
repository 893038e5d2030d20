"""A run's state on disk: enough to go on as if nothing had happened."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import replacing
from dovit.training.settings import Settings

STATE_NAME = "last.pt"


def save_state(out: Path, step: int, settings: Settings, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write OUT/last.pt, after `step` steps, whole or not at all. Random numbers need no saving: they are a function of
    seed and step."""
    path = out / STATE_NAME
    content = {
        "step": step, "settings": settings.model_dump(mode="json"),
        "model": model.state_dict(), "optimiser": optimiser.state_dict(),
    }  # fmt: skip
    try:
        with replacing(path) as part:
            torch.save(content, part)
    except RuntimeError as error:  # as torch reports what the system refused it
        raise DovitError(f"{path}: cannot be written ({error}); go on with --resume when it can") from None


def load_state(out: Path, settings: Settings, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Bring model and optimiser to where OUT/last.pt left them, and return how many steps that is; 0 without such a file.

    Raises UsageError where it belongs to a run with other settings, DovitError where it cannot be read.
    """
    path = out / STATE_NAME
    if not path.exists():
        return 0
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = Settings.model_validate(content["settings"])
        other = settings.differences(saved)
        if other:
            raise UsageError(
                f"{path} is of a run with other settings ({', '.join(other)}): give the same, or another --out"
            )
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        return int(content["step"])
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ):
        raise DovitError(
            f"{path}: not the state of a run of this model, or damaged; delete it to begin anew, or give another --out"
        ) from None
