"""Multiply-accumulates of one step as a polynomial in its number of tokens."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StepMacs(BaseModel):
    """MACs of a step that runs on T tokens, prefix tokens included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fixed: int = 0
    per_token: int = 0
    per_pair: int = 0
    fixed_pairs: int = 0

    def paper(self, tokens: int) -> int:
        """As the paper counts: without the two attention products."""
        return self.fixed + self.per_token * tokens

    def true(self, tokens: int) -> int:
        """With them."""
        return self.paper(tokens) + self.fixed_pairs + self.per_pair * tokens * tokens
