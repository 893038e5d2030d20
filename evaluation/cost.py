"""The MACs of an image, block by block, computed from the tokens that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from dovit.runtime.bundle.macs import StepMacs
from dovit.runtime.bundle.manifest import Manifest

Macs = tuple[int, int]  # the paper's count and the true one


@dataclass(frozen=True)
class Cost:
    """The steps' costs: stem, block 2 … block D+1, decoder."""

    steps: tuple[StepMacs, ...]
    prefix: int
    tokens: int
    dense: Macs  # of the model without decisions

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> Cost:
        """Of a bundle's steps; one that is a single step, the dense model as one graph, has no decoder of its own."""
        steps = tuple(s.macs for s in manifest.steps)
        if len(steps) == 1:
            steps += (StepMacs(),)
        return cls(steps, manifest.prefix, manifest.tokens, manifest.dense_macs)

    def by_step(self, kept: tuple[int, ...]) -> list[Macs]:
        """MACs of every step of one pass that keeps `kept` tokens after its decisions; zero for a block with none."""
        costs: list[Macs] = []
        for step, count in zip(self.steps[:-1], (self.tokens, *kept), strict=True):
            runs = count > 0 or not costs
            costs.append((step.paper(self.prefix + count), step.true(self.prefix + count)) if runs else (0, 0))
        decoder = self.steps[-1]
        return [*costs, (decoder.paper(self.prefix), decoder.true(self.prefix))]

    def of(self, kept: tuple[int, ...]) -> Macs:
        """MACs of one pass."""
        paper, true = zip(*self.by_step(kept), strict=True)
        return sum(paper), sum(true)
