"""Loads a checkpoint of any known family as a model."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from dovit.export.checkpoints.families import FAMILIES
from dovit.export.checkpoints.family import Checkpoint
from dovit.export.checkpoints.foreign import explain_content, explain_file
from dovit.export.checkpoints.huggingface import CONFIG, read_folder, read_model_type
from dovit.export.checkpoints.options import LEFT_OUT, ReadOptions
from dovit.export.checkpoints.pos_embed import check_bounds
from dovit.export.checkpoints.safe import read_file
from dovit.export.checkpoints.segmenters import NEW_DECODER
from dovit.export.checkpoints.settings import Setting, Settings
from dovit.export.checkpoints.tensors import plain_tensors
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError, describe_validation, first_line, printable


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, the name of its file's format, what the user should know about keys, and where every setting
    comes from."""

    model: DoViT
    format: str
    notes: list[str]
    settings: tuple[Setting, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the file is a backbone alone, to which an untrained decoder was added."""
        return NEW_DECODER in self.notes

    @property
    def left_out(self) -> str | None:
        """What of token pass the file holds, where ReadOptions.dense left it out."""
        note = next((note for note in self.notes if note.endswith(LEFT_OUT)), None)
        return None if note is None else note.rpartition(": ")[2].removesuffix(LEFT_OUT)


def load_model(path: str | Path, options: ReadOptions | None = None) -> LoadedModel:
    """Read the checkpoint `path`. Weights are float32 on the CPU.

    Raises DovitError or UsageError with one sentence where the file cannot be read, is of no known format, or does not
    fit; every key that is unknown, missing or of another shape is in it.
    """
    path, options = Path(path), options or ReadOptions()
    _check_size(options)
    try:
        checkpoint = _checkpoint(path)
    except DovitError as error:
        known = explain_file(path)
        if known is None:
            raise
        raise DovitError(f"{path}: {known}") from error
    settings = Settings(path)
    try:
        found = _read(checkpoint, options, settings)
    except (DovitError, MemoryError):
        raise
    except ValidationError as error:
        raise DovitError(f"{path}: cannot be a model: {describe_validation(error)}") from error
    except KeyError as error:
        raise DovitError(f"{path}: the key {error.args[0]} is missing; is this the whole checkpoint?") from error
    except Exception as error:  # tensors of another rank or size than the key's, metadata of another type: anywhere
        raise DovitError(
            f"{path}: its keys are known, but its tensors or its metadata do not make a model ({first_line(error)}); "
            "get the original"
        ) from error
    if found is None:
        known = explain_content(checkpoint.content, checkpoint.state)
        if known:
            raise DovitError(f"{path}: {known}")
        kind = read_model_type(checkpoint)
        raise DovitError(
            f"{path}: none of the known formats (dovit, mmsegmentation's SETR and Segmenter, rstrudel/segmenter, DINOv2, DINOv3, "
            f"EoMT, timm, DeiT){f', and its config.json says model_type {kind}' if kind else ''}; its keys begin "
            f"{', '.join(list(checkpoint.state)[:3])}"
        )
    return found


def _check_size(options: ReadOptions) -> None:
    """Before positions are resized to it, which takes memory."""
    if options.image_size is not None:
        check_bounds(options.image_size, "--image-size")


def _read(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> LoadedModel | None:
    """None where the format is unknown."""
    family = next((family for family in FAMILIES if family.recognise(checkpoint)), None)
    if family is None:
        return None
    told = next((f"--set {change}" for change in options.changes if change.startswith("head.")), None)
    told = "--head" if options.head is not None else told
    if told and not family.takes_head:
        able = ", ".join(family.name for family in FAMILIES if family.takes_head)
        raise UsageError(f"{told}: {checkpoint.path} is of {family.name}; heads of their own have backbones of {able}")
    model, notes = family.read(checkpoint, options, settings)
    # notes have keys in them
    loaded = LoadedModel(model, family.name, [printable(note) for note in notes], tuple(settings))
    if options.decoder_layers is not None and not loaded.is_new:
        raise UsageError(
            f"--decoder-layers is for a backbone alone, and {options.head or checkpoint.path} holds a decoder: leave it out"
        )
    return loaded


def _checkpoint(path: Path) -> Checkpoint:
    with contextlib.suppress(OSError):  # of a path that may not be looked at, which read_file puts into a sentence
        if path.is_dir() and (path / CONFIG).is_file():
            return Checkpoint(path, *read_folder(path))
    content = read_file(path)
    return Checkpoint(path, content, _weights(path, content))


def _weights(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The dictionary of tensors, wherever the project nests it, without the prefix of data-parallel training."""
    state: Any = content
    for nest in ("state_dict", "model", "teacher"):  # the last in DINO's training
        if isinstance(content.get(nest), dict):
            state = content[nest]
            break
    tensors = plain_tensors(path, state)
    if not tensors:
        raise DovitError(f"{path}: holds no weights; give the file with the state_dict")
    return tensors
