"""The settings that a run's result depends on, apart from its data and initial checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from dovit.export.model.config import Part
from dovit.training.optimiser import OptimiserName

PolicyName = Literal["confidence", "dynamicvit"]


class Settings(Part):
    """Saved with a run; a resumed run must have the same. Learning rates and decay are per step, `batch` per process."""

    model_config = ConfigDict(allow_inf_nan=False)

    steps: int = Field(default=80_000, gt=0, le=1 << 31)
    batch: int = Field(default=2, gt=0, le=1 << 16)
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    policy: PolicyName = "confidence"
    ratio: float = Field(default=0.9, gt=0, le=1)
    heads_only: bool = False
    freeze_backbone: bool = False
    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=0.4, ge=0)
    optimiser: OptimiserName = "sgd"
    lr: float = Field(default=0.001, gt=0)
    min_lr: float = Field(default=0.0, ge=0)
    power: float = Field(default=0.9, ge=0)
    warmup: int = Field(default=0, ge=0, le=1 << 31)
    weight_decay: float = Field(default=0.0, ge=0)
    head_lr_mult: float = Field(default=1.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    label_stride: int = Field(default=1, gt=0, le=1 << 15)
    ratio_range: tuple[float, float] = (0.5, 2.0)
    photometric: bool = True

    def differences(self, other: Settings) -> list[str]:
        """The fields in which two settings are not the same."""
        return [name for name in Settings.model_fields if getattr(self, name) != getattr(other, name)]
