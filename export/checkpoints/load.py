"""Whatever checkpoint a user brings, as a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from dovit.export.checkpoints.foreign import explain_file, explain_keys
from dovit.export.checkpoints.mmsegmentation import is_mmseg, read_mmseg
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.own import read_own
from dovit.export.checkpoints.rstrudel import is_rstrudel, read_rstrudel
from dovit.export.checkpoints.safe import read_file
from dovit.export.checkpoints.settings import Setting, Settings
from dovit.export.checkpoints.timm import is_timm, read_timm
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, the name of its file's format, what the user should know about keys, and where every setting
    comes from."""

    model: DoViT
    format: str
    notes: list[str]
    settings: tuple[Setting, ...] = ()


def load_model(path: str | Path, options: ReadOptions | None = None) -> LoadedModel:
    """Read the checkpoint `path`. Weights are float32 on the CPU.

    Raises DovitError or UsageError with one sentence where the file cannot be read, is of no known format, or does not
    fit; every key that is unknown, missing or of another shape is in it.
    """
    path, options = Path(path), options or ReadOptions()
    try:
        content = read_file(path)
        state = _weights(path, content)
    except DovitError:
        known = explain_file(path)
        if known is None:
            raise
        raise DovitError(f"{path}: {known}") from None
    settings = Settings(path)
    try:
        if content.get("dovit") is not None:
            model, notes = read_own(path, content["dovit"], state, options, settings)
            return LoadedModel(model, "dovit", notes, tuple(settings))
        if is_mmseg(state):
            model, notes = read_mmseg(path, content, state, options, settings)
            return LoadedModel(model, "mmsegmentation", notes, tuple(settings))
        if is_rstrudel(state):
            model, notes = read_rstrudel(path, state, options, settings)
            return LoadedModel(model, "segmenter", notes, tuple(settings))
        if is_timm(state):
            model, notes = read_timm(path, content, state, options, settings)
            return LoadedModel(model, "timm/DeiT", notes, tuple(settings))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DovitError(f"{path}: cannot be a model: {reason}") from None
    except KeyError as error:
        raise DovitError(f"{path}: the key {error.args[0]} is missing; is this the whole checkpoint?") from None
    known = explain_keys(state)
    if known:
        raise DovitError(f"{path}: {known}")
    keys = ", ".join(list(state)[:3])
    raise DovitError(
        f"{path}: none of the known formats (dovit, mmsegmentation's SETR and Segmenter, rstrudel/segmenter, timm, DeiT); "
        f"its keys begin {keys}"
    )


def _weights(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The dictionary of tensors, wherever the project nests it, without the prefix of data-parallel training."""
    state: Any = content
    for nest in ("state_dict", "model"):
        if isinstance(content.get(nest), dict):
            state = content[nest]
            break
    tensors = {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DovitError(f"{path}: holds no weights; give the file with the state_dict")
    return tensors
