"""Short runs of a small segmenter on procedural streets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from models import small_config

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import ModelConfig
from dovit.training.optimiser import learning_rate
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings

READ: dict[str, Any] = {
    "arch": None,
    "classes": None,
    "image_size": None,
    "decision_layers": None,
    "decoder_layers": None,
    "head_norm": None,
    "thresholds": None,
    "dense": False,
}


def street_config(decoder: str = "setr-naive", **changes: Any) -> ModelConfig:
    return small_config(decoder, **{"classes": 19, "embed_dim": 32, "depth": 4, "layers": (1, 2), **changes})


def street_run(
    out: Path,
    checkpoint: Path,
    settings: Settings,
    read: dict[str, Any] | None = None,
    data: str = "streets:8",
    **more: Any,
) -> None:
    """A run, on streets by default; `more`: arguments of `run`."""
    run(
        StartingPoint(checkpoint=checkpoint, read={**READ, **(read or {})}),
        lambda gpu: settings,
        data,
        out,
        **{"device": "cpu", "log_every": 1, "workers": 0, **more},
    )


def signals_in(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """The process gets signals in the middle of a step."""

    def rate(now: int, *arguments: Any, **more: Any) -> float:
        if now == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return learning_rate(now, *arguments, **more)

    monkeypatch.setattr("dovit.training.loop.learning_rate", rate)


def trained(out: Path, checkpoint: Path, read: dict[str, Any] | None = None, **settings: Any) -> list[dict[str, Any]]:
    """The same with `settings`; what its log says."""
    street_run(out, checkpoint, Settings(**{"steps": 4, "batch": 2, "optimiser": "adamw", **settings}), read)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(path: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The model's weights by name, read with `options`."""
    return load_model(path, ReadOptions(**options)).model.state_dict()
