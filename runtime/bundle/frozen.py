"""What all parts of the manifest have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A part of the manifest: it never changes, and holds nothing that this version does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
