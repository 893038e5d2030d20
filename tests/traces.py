"""torch.onnx.export once for each structure of module in a run: what dovit traces takes its weights as inputs, so models of one
structure and other weights give the same graph. A trace takes most of the time of a small model's export."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from shared import made_once
from torch.onnx._internal.exporter._registration import ONNXRegistry

from dovit.export.graph import pieces
from dovit.export.model.config import ModelConfig


@contextmanager
def cheaper_exports() -> Iterator[None]:
    """torch.onnx.export builds its table of operators anew in each call, which takes a quarter of a small export's time. It only
    reads the table, so one serves all exports of a process. And modules of one structure are traced once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        patch.setattr(torch.onnx, "export", shared_traces(torch.onnx.export))
        yield


def shared_traces(export: Callable[..., Any]) -> Callable[..., Any]:
    """`export`, which is torch.onnx.export, with the graphs of pieces taken from the folder of the run."""

    def exported(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], **settings: Any) -> Any:
        if not isinstance(module, pieces._WithWeights):
            return export(module, inputs, **settings)

        def trace(folder: Path) -> None:
            onnx.save(export(module, inputs, **settings).model_proto, folder / "piece.onnx")

        file = made_once(f"trace-{structure(module, inputs, settings)}", trace) / "piece.onnx"
        return SimpleNamespace(model_proto=onnx.load(file))

    return exported


class _Structure(pickle.Pickler):
    """Pickles tensors as their shapes and types, and with each module its class's code, which a test may have replaced."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return type(value).__name__, tuple(value.shape), str(value.dtype), value.requires_grad
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.nn.Module):
            code = type(value).forward.__code__
            return _rebuilt, (type(value), code.co_code, repr(code.co_consts)), value.__dict__
        if isinstance(value, ModelConfig):  # decisions are traced as modules of their own
            return _rebuilt, (value.model_dump_json(exclude={"decisions"}), value.least_kept)
        return NotImplemented


def _rebuilt(*_: Any) -> Any:
    """Never called: what is pickled here is only hashed."""


def structure(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], settings: dict[str, Any]) -> str:
    """A hash of all that a trace depends on."""
    file = io.BytesIO()
    shapes = [[(dim, bound.__name__) for dim, bound in dims.items()] for dims in settings["dynamic_shapes"][0]]
    others = {name: value for name, value in settings.items() if name != "dynamic_shapes"}
    _Structure(file).dump((module, inputs, shapes, others, torch.get_default_dtype()))
    return hashlib.sha256(file.getvalue()).hexdigest()[:16]
