"""dovit's own checkpoints: the configuration and the weights, in `.pth` or `.safetensors`."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.keys import Account, check_classes
from dovit.export.checkpoints.literals import parse_change, set_value
from dovit.export.checkpoints.options import LEFT_OUT, ReadOptions
from dovit.export.checkpoints.pos_embed import Interpolation, image_size_for, resize_positions
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import DoViT, ModelConfig
from dovit.export.model.dovit import TOKEN_PASS, is_of_token_pass
from dovit.runtime.errors import DovitError, UsageError, describe_validation
from dovit.runtime.files import atomic_write, check_free, real_path

POSITIONS = Interpolation("bicubic")


def save_model(model: DoViT, path: str | Path, *, half: bool = False) -> None:
    """Write `model` to `path`, whole or not at all: `.safetensors` with the configuration in its metadata under `dovit`,
    anything else as a torch file {'dovit': configuration, 'state_dict': weights}. `half`: weights as float16.

    Raises DovitError where the file cannot be written, or a weight is not finite: no model could be run with it.
    """
    path = Path(path)
    config = model.config.model_dump(mode="json")
    if path.suffix == ".safetensors":
        write_safetensors(model.state_dict(), {"dovit": json.dumps(config)}, path, half=half)
    else:
        write_torch({"dovit": config, "state_dict": _stored(model.state_dict(), half)}, path)


def check_space(config: ModelConfig, path: Path) -> None:
    """Raise OutputError where `save_model` would find the disk full."""
    with torch.device("meta"):
        needed = 4 * sum(tensor.numel() for tensor in DoViT(config).state_dict().values())
    check_free(real_path(path), needed, "the model takes", "free some space, or give another place")


def write_safetensors(state: dict[str, Tensor], about: dict[str, str], path: Path, *, half: bool = False) -> None:
    """Tensors and metadata into a `.safetensors` file, whole or not at all. DovitError where it cannot be written."""
    _write(path, lambda part: save_file(_stored(state, half), part, about))


def write_torch(content: dict[str, Any], path: Path) -> None:
    """`content` as torch.save writes it, whole or not at all. DovitError where it cannot be written."""

    def write(part: Path) -> None:
        with part.open("wb") as stream:  # given a name, torch does not say why it could not write
            torch.save(content, stream)

    _write(path, write)


def _stored(state: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    """Tensors as they go into a file."""
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = tensor.detach().cpu().contiguous()
        if not found.isfinite().all():
            raise DovitError(f"{name} has values that are not finite: train with a lower --lr, or with --clip 1")
        stored[name] = found.half() if half and found.dtype == torch.float32 else found
        if not stored[name].isfinite().all():
            raise DovitError(f"{name} has values beyond those of float16 (65504): leave --fp16-weights out")
    return stored


def _write(path: Path, write: Callable[[Path], None]) -> None:
    with atomic_write(path) as part, system_errors():
        write(part)


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """A block in which torch and safetensors write a file: the system's errors, as OSError, in the place of what they make of
    them."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise _system_error(error) from None


def _system_error(error: BaseException) -> OSError:
    """The system's error behind one of torch, which met it before, or of safetensors, which names its number."""
    before: BaseException | None = error
    while before is not None:
        if isinstance(before, OSError):
            return before
        before = before.__context__
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def _is_valid(config: Any) -> bool:
    try:
        ModelConfig.model_validate(config)
    except ValidationError:
        return False
    return True


def is_own(checkpoint: Checkpoint) -> bool:
    """Whether the file carries dovit's configuration."""
    return checkpoint.content.get("dovit") is not None


def read_own(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    path, config = checkpoint.path, checkpoint.content["dovit"]
    if options.config is not None:
        raise UsageError(f"--config: {path} carries its own configuration; --set changes it")
    stored_config, config = config, copy.deepcopy(config)
    flags = {
        "backbone.heads": ("--heads", options.heads),
        "backbone.norm_eps": ("--norm-eps", options.norm_eps),
        "mean": ("--mean", options.mean),
        "std": ("--std", options.std),
        "mode": ("--mode", options.mode),
        "slide_stride": ("--stride", options.stride),
    }
    overrides = {key: ("--set", value) for key, value in map(parse_change, options.changes)}
    overrides |= {key: (flag, value) for key, (flag, value) in flags.items() if value is not None}
    if any(key.startswith("image_size") for key in overrides):
        raise UsageError("--set image_size: give --image-size, which also resizes the positional embedding")
    for key, (_, value) in overrides.items():
        set_value(config, key, value)
    try:
        model_config = ModelConfig.model_validate(config)
    except ValidationError as error:
        if overrides and _is_valid(stored_config):
            given = ", ".join(dict.fromkeys(flag for flag, _ in overrides.values()))
            raise UsageError(f"{given}: does not fit {path} ({describe_validation(error)})") from None
        raise DovitError(
            f"{path}: its configuration is not one that this dovit reads ({describe_validation(error)})"
        ) from None
    if options.arch and options.arch != model_config.decoder.kind:
        raise UsageError(f"--arch {options.arch}: {path} says that it is {model_config.decoder.kind}")
    check_classes(model_config.classes, options.classes)
    _record(settings, model_config, overrides)
    layers = tuple(head.layer for head in model_config.decisions)
    if options.decision_layers not in (None, layers) and layers:
        raise UsageError(f"--decision-layers: the heads of {path} sit after layers {', '.join(map(str, layers))}")

    account = Account(path, dict(checkpoint.state))
    account.rename([(r"(?!backbone\.pos_embed$|mean$|std$).+", r"\g<0>")])
    if settings.choose("BGR weights", option=("--bgr", options.bgr), file=("dovit's checkpoints are RGB", False)):
        account.bgr_to_rgb()
    size = image_size_for(
        model_config.tokens, model_config.backbone.patch, options.image_size or model_config.image_size
    )
    changes: dict[str, Any] = {"image_size": size}
    if size != model_config.image_size and options.stride is None:
        changes["slide_stride"] = None
    resized = model_config.model_copy(update=changes)
    if model_config.backbone.rotary is None:  # rotary positions are computed for any size
        positions = account.take("backbone.pos_embed")
        if len(positions) != model_config.tokens:
            raise DovitError(
                f"{path}: {len(positions)} positions, and its configuration says {model_config.tokens} patches: copy it again"
            )
        account.weights["backbone.pos_embed"] = resize_positions(
            positions, resized.grid, POSITIONS, trained=model_config.grid
        )
    if not model_config.decisions and not options.dense:
        changes["decisions"] = options.new_heads(path, model_config.backbone.depth, model_config.joining_layer)
    if options.dense:
        changes |= {"decisions": (), "refinement": None}
        names = list(filter(is_of_token_pass, account.weights))
        for name in names:
            del account.weights[name]
        if names:
            parts = [part for part in TOKEN_PASS if any(name.startswith(f"{part}.") for name in names)]
            account.unused[f"decision {', '.join(parts)}{LEFT_OUT}"] = names
    decisions = changes.get("decisions", model_config.decisions)
    changes["thresholds"] = options.thresholds_for(len(decisions), model_config.thresholds)
    resized = ModelConfig.model_validate({**model_config.model_dump(), **changes})
    return account.model(resized, ("heads.",) if options.untrained else ()), account.notes()


def _record(settings: Settings, config: ModelConfig, overrides: dict[str, tuple[str, Any]]) -> None:
    """What a result depends on, and which options changed it."""
    backbone = config.backbone
    known = {
        "mean": config.mean,
        "std": config.std,
        "backbone.heads": backbone.heads,
        "backbone.norm_eps": backbone.norm_eps,
        "mode": config.mode,
        "slide_stride": config.slide_stride,
    }
    for name, value in known.items():
        option = (overrides[name][0], value) if name in overrides else None
        settings.choose(name.removeprefix("backbone."), option=option, file=("its configuration", value))
    for key, (flag, value) in overrides.items():
        if key not in known:
            settings.choose(key, option=(flag, value))


FAMILY = Family("dovit", is_own, read_own)
