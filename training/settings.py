"""Everything that a run's result depends on, beside its data and its first checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dovit.training.optimiser import OptimiserName

PolicyName = Literal["confidence", "dynamicvit"]


class Settings(BaseModel):
    """Saved with a run; a resumed run must have the same. Learning rates and decay are per step, `batch` per process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=80_000, gt=0)
    batch: int = Field(default=2, gt=0)
    seed: int = 0
    policy: PolicyName = "confidence"
    ratio: float = Field(default=0.9, gt=0, le=1)
    heads_only: bool = False
    alpha: float = 1.0
    beta: float = 0.4
    optimiser: OptimiserName = "sgd"
    lr: float = Field(default=0.001, gt=0)
    min_lr: float = 0.0
    power: float = 0.9
    warmup: int = Field(default=0, ge=0)
    weight_decay: float = 0.0
    head_lr_mult: float = 1.0
    clip: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    label_stride: int = Field(default=1, gt=0)
    ratio_range: tuple[float, float] = (0.5, 2.0)
    photometric: bool = True

    def differences(self, other: Settings) -> list[str]:
        """The fields in which two settings are not the same."""
        return [name for name in Settings.model_fields if getattr(self, name) != getattr(other, name)]
