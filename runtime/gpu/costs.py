"""Bytes that an operation reads and writes, and arithmetic of a step, given how many tokens each decision kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dovit.runtime.bundle.dimensions import kept_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.tensors import TensorSpec


class Costs:
    """Of one pass over `batch` images. `kept`: tokens of an image after each decision that was made."""

    def __init__(self, manifest: Manifest, batch: int, kept: Sequence[int]) -> None:
        self._manifest, self._batch = manifest, batch
        self._counts = [manifest.tokens, *kept]
        self._dims = {"batch": batch, "capacities": len(manifest.capacities)}
        for number, count in enumerate(kept, start=1):
            self._dims |= kept_dims(manifest, number, count)

    def tokens(self, number: int) -> int:
        """Tokens of an image after `number` decisions, 0 where there were fewer."""
        return self._counts[number] if number < len(self._counts) else 0

    def moved(self, step: PlanStep, number: int) -> int:
        """Bytes that segment `number`'s operation must read and write once: what is in the caches between its kernels is
        not counted, so an operation of many kernels moves more."""
        if step.kind == "gather":
            tokens, index = step.inputs[:2]
            before, after = self.tokens(number - 1), self.tokens(number)
            row = self._manifest.embed_dim * tokens.itemsize
            prefix, stopped = self._manifest.prefix, before - after
            lists = (2 * before + after) * index.itemsize  # index and slots, and the new index
            return self._batch * (((prefix + before) + (prefix + after) + stopped) * row + lists)
        if step.kind == "decide":
            before, kept = self.tokens(number), self.tokens(number + 1)
            return self._batch * 4 * (before + before + kept)  # confidences, slots, and the list of the kept
        if step.kind == "reconstruct":
            full, tokens, index = step.inputs
            rows, row = self.tokens(number), self._manifest.embed_dim * tokens.itemsize
            copied = 2 * self._size(full) if step.outputs[0].name in self._manifest.taps else 0
            return self._batch * rows * (2 * row + index.itemsize) + copied
        weights = step.plan.weight_bytes if step.plan else 0
        return weights + sum(self._size(spec) for spec in (*step.inputs, *step.outputs))

    def flops(self, step: str) -> int:
        """Of a step of the manifest, attention products included; a multiplication and an addition are two."""
        steps, prefix = self._manifest.steps, self._manifest.prefix
        number = [s.name for s in steps].index(step)
        if number == len(steps) - 1:  # the decoder, whose work no decision changes
            return 2 * self._batch * steps[number].macs.true(prefix)
        count = self.tokens(number)
        return 2 * self._batch * steps[number].macs.true(prefix + count) if count else 0

    def _size(self, spec: TensorSpec) -> int:
        return int(np.prod(spec.resolve(self._dims), dtype=np.int64)) * spec.itemsize
