"""The tensors of a file, as readers may expect them: dense, on the CPU, of real numbers, each element in its own place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dovit.runtime.errors import DovitError

TYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
LONGEST_KEY = 1000  # characters
# tensors of so many tokens that there may be none: DINOv2's registers, and the prefix of dovit's own models without a class token
MAY_BE_NONE = "register_tokens", "backbone.prefix"


def plain_tensors(path: Path, state: dict[Any, Any]) -> dict[str, Tensor]:
    """The tensors among the values of `state`, under their names without the prefix of data-parallel training.

    Raises DovitError for a tensor that is not what a file of weights holds: sparse, nested, quantised, complex, on another
    device, without elements, or with more elements than it has memory for, as `expand` makes them.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor) or (not value.numel() and str(key).endswith(MAY_BE_NONE)):
            continue
        if not isinstance(key, str) or len(key) > LONGEST_KEY:
            raise DovitError(
                f"{path}: a tensor is named by {str(key)[:40]!r}, not by a key; save the model's state_dict"
            )
        reason = _unfit(value)
        if reason:
            raise DovitError(
                f"{path}: the tensor {key} {reason}; save a state_dict of plain tensors (.to_dense(), .dequantize(), "
                f".contiguous())"
            )
        tensors[key.removeprefix("module.")] = torch.Tensor.detach(value)
    return tensors


def _unfit(tensor: Tensor) -> str | None:
    """Why a reader cannot take it."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is nested" if tensor.is_nested else f"is sparse ({tensor.layout})"
    if tensor.is_quantized:
        return f"is quantised ({tensor.dtype})"
    if tensor.dtype not in TYPES:
        return f"has the type {tensor.dtype}"
    if tensor.device.type != "cpu":
        return f"has no values (it is on the device {tensor.device})"
    if not tensor.numel():
        return f"is empty (shape {list(tensor.shape)})"
    there = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    if tensor.numel() > there:
        return f"has {tensor.numel()} elements in memory for {there}"
    return None
