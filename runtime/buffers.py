"""Memory for the tensors between steps: planned once from the manifest, and reused for every image.

Two tensors share a buffer if they are never needed at the same time. Buffers are sized for an image that keeps every token, so
none is ever reallocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dovit.runtime.bundle.dimensions import full_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.tensors import TensorSpec

RESULTS = ("logits", "labels")  # owned by the caller, so not part of the plan
ALIGNMENT = 64  # bytes: a cache line, and enough for any vector load


class ChainStep(Protocol):
    """What a chain needs to know about a step: implemented by the manifest's Step and by PlanStep."""

    @property
    def name(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


@dataclass(frozen=True)
class BufferPlan:
    """`slot` of each planned tensor, and the bytes of each slot."""

    slot: dict[str, int]
    sizes: tuple[int, ...]


def plan_buffers(manifest: Manifest, steps: Sequence[ChainStep], batch: int) -> BufferPlan:
    """Assign slots greedily in the order of `steps`. `keep` tensors are not planned: only the decision knows their size."""
    dims = full_dims(manifest, batch)
    needed: dict[str, int] = {}  # tensor -> the last step that reads it
    for number, step in enumerate(steps):
        needed |= {spec.name: number for spec in step.inputs}

    slot: dict[str, int] = {}
    sizes: list[int] = []
    busy_until: list[int] = []
    keeps = {decision.keep for decision in manifest.decisions}
    for number, step in enumerate(steps):
        for spec in step.outputs:
            if spec.name in keeps or spec.name in RESULTS:
                continue
            size = _bytes(spec, dims)
            free = [s for s, until in enumerate(busy_until) if until < number]
            chosen = min(free, key=lambda s: abs(sizes[s] - size), default=len(sizes))
            if chosen == len(sizes):
                sizes.append(0)
                busy_until.append(0)
            slot[spec.name] = chosen
            sizes[chosen] = max(sizes[chosen], size)
            busy_until[chosen] = needed.get(spec.name, number)  # a step's outputs never share memory
    return BufferPlan(slot, tuple(sizes))


def _bytes(spec: TensorSpec, dims: dict[str, int]) -> int:
    return math.prod(spec.resolve(dims)) * spec.itemsize


class Workspace:
    """The memory of one image (or batch) under way, on the host."""

    def __init__(self, manifest: Manifest, steps: Sequence[ChainStep], batch: int) -> None:
        self.batch = batch
        self._plan = plan_buffers(manifest, steps, batch)
        self._slots = [_aligned(size) for size in self._plan.sizes]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(self._plan.sizes)

    def array(self, spec: TensorSpec, dims: dict[str, int]) -> np.ndarray:
        """The place of a tensor, as an array of its present shape."""
        shape = spec.resolve(dims)
        slot = self._slots[self._plan.slot[spec.name]]
        return slot[: math.prod(shape) * spec.itemsize].view(spec.dtype).reshape(shape)


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
