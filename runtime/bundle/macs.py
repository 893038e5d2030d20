"""The multiply-accumulates (MACs) of a step as a polynomial in its number of tokens: computed without the model."""

from __future__ import annotations

from dovit.runtime.bundle.frozen import Frozen


class StepMacs(Frozen):
    """MACs of a step that runs on T tokens, prefix tokens included.

    `fixed` may be negative: a head leaves out the prefix tokens, which `per_token` counts.
    """

    fixed: int = 0
    per_token: int = 0
    per_joined: int = 0  # of a token with the queries that join some of a step's layers: the same products
    per_pair: int = 0  # of tokens: the attention products QKᵀ and AV
    fixed_pairs: int = 0  # the same in a decoder, over a number of tokens that never changes; its mask product

    def paper(self, tokens: int) -> int:
        """As the paper counts: products with weights, without the attention products."""
        return self.fixed + self.per_token * tokens

    def true(self, tokens: int) -> int:
        """With them."""
        return self.paper(tokens) + self.fixed_pairs + (self.per_joined + self.per_pair * tokens) * tokens
