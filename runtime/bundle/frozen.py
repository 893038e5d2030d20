"""The base class of all parts of the manifest."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A part of the manifest: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
