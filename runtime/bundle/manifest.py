"""`bundle.json`: the one place where export, engines and runtime meet."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dovit.runtime.bundle.macs import StepMacs

SCHEMA_VERSION = 1
MANIFEST_NAME = "bundle.json"
Schedule = Literal["exact", "bucketed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Frozen):
    """A tensor that enters or leaves a step. A dimension is a number or one of these names: `batch`; `kept3`, the
    tokens kept by decision 3; `length3`, the same with the prefix tokens; `capacities`, any number of them."""

    name: str
    dtype: Literal["uint8", "int16", "int32", "int64", "float32"]
    shape: tuple[int | str, ...]

    def resolve(self, dims: dict[str, int]) -> tuple[int, ...]:
        """The shape with its names replaced. Raises KeyError where a dimension is not known yet."""
        return tuple(d if isinstance(d, int) else dims[d] for d in self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize


class Step(_Frozen):
    """One subgraph: tensors flow between steps by name."""

    name: str
    onnx: str = Field(description="path of the ONNX file, relative to the bundle")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    macs: StepMacs


class State(_Frozen):
    """The names of the tensors that say where every token is: see `dovit.export.model.token_pass.TokenState`."""

    tokens: str
    index: str
    full: str


class DecisionSpec(_Frozen):
    """A decision at the end of a block: the state it is made on, its inputs and what it says, by tensor name."""

    layer: int
    state: State
    threshold: str
    confidence: str
    keep: str


class FileEntry(_Frozen):
    """A file of the bundle."""

    sha256: str
    size: int


class Manifest(_Frozen):
    """Everything that a runtime must know about a bundle. Sizes are (height, width)."""

    schema_version: int = SCHEMA_VERSION
    dovit_version: str
    architecture: str
    image_size: tuple[int, int]
    patch: int
    embed_dim: int
    prefix: int
    classes: int
    class_names: tuple[str, ...] | None
    palette: tuple[tuple[int, int, int], ...] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    slide_stride: tuple[int, int]
    precision: Literal["fp32"]
    thresholds: tuple[float, ...]
    capacities: tuple[int, ...]
    dense_macs: tuple[int, int] = Field(description="the paper's and the true count of the model without decisions")
    steps: tuple[Step, ...]
    decisions: tuple[DecisionSpec, ...]
    final: State
    taps: tuple[str, ...]
    files: dict[str, FileEntry]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): patches down and across."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def tokens(self) -> int:
        """N = h·w."""
        return self.grid[0] * self.grid[1]

    def macs(self, kept: tuple[int, ...]) -> tuple[int, int]:
        """(paper's count, true count) of one image that keeps `kept` tokens after each decision made."""
        counts = [self.tokens, *kept]
        paper = true = 0
        for step, count in zip(self.steps[:-1], counts, strict=False):
            if count or step is self.steps[0]:
                paper += step.macs.paper(self.prefix + count)
                true += step.macs.true(self.prefix + count)
        decoder = self.steps[-1].macs
        return paper + decoder.paper(self.prefix), true + decoder.true(self.prefix)
