"""`bundle.json`: the one place where export, engines and runtime meet."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.macs import StepMacs
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.quantization import Quantization
from dovit.runtime.bundle.tensors import TensorSpec

# 2: plans, and bundles without ONNX files; 3: mode and keep_ratio; 4: files for OpenVINO; 5: quantized products
SCHEMA_VERSION = 5
MANIFEST_NAME = "bundle.json"
OPERATOR_DOMAIN = "dovit"  # of the token pass's nodes in the ONNX files
# By these a node of that domain tells TensorRT which plugin it is. Parsers before 10.15 find it by its name as well, from then on
# they take the ONNX function where the attributes are missing.
PLUGIN_ATTRIBUTES = {"plugin_namespace": OPERATOR_DOMAIN, "plugin_version": "1"}
Schedule = Literal["exact", "rounded", "bucketed"]
REFINEMENT = "refinement"  # is in `architecture` where the model has one
ROUNDED_TO = 16  # kept counts of `rounded` are multiples of this, and N; runtime/cpp/chain/executor.h has the same
Mode = Literal["whole", "slide"]


class Step(Frozen):
    """One subgraph: tensors flow between steps by name."""

    name: str
    onnx: str | None = Field(description="path of the ONNX file, relative to the bundle; None where it was left out")
    openvino: tuple[str, ...] = Field(
        default=(),
        description="paths of the same for OpenVINO, without functions: run in this order, all but the first in float32 always",
    )
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    macs: StepMacs

    @property
    def step(self) -> str:
        """Its own name: a PlanStep has a property of this name, the step that it belongs to."""
        return self.name


class State(Frozen):
    """The names of the tensors that say where every token is: see `dovit.export.model.token_pass.TokenState`."""

    tokens: str
    index: str
    full: str


class DecisionSpec(Frozen):
    """A decision at the end of a block: the state it is made on, its inputs and what it says, by tensor name."""

    layer: int
    state: State
    threshold: str
    confidence: str
    keep: str
    # left out of files where it is 1, so that they stay readable for versions without it
    lens_kernel: int = Field(
        default=1,
        exclude_if=lambda kernel: kernel == 1,
        description="rows and columns of patches that the decision's lens sees; 1 where it sees a token alone, or there is none",
    )


class Source(Frozen):
    """What the ONNX files were made of: if nothing of it has changed, an export reuses them."""

    checkpoint: str = Field(description="SHA-256 of the checkpoint file")
    options: str = Field(description="SHA-256 of the options, and of the code that exports")
    verified: bool = Field(description="whether the files were compared with the torch model")


class FileEntry(Frozen):
    """A file of the bundle."""

    sha256: str
    size: int


class Manifest(Frozen):
    """Everything that a runtime must know about a bundle. Sizes are (height, width)."""

    schema_version: int = SCHEMA_VERSION
    dovit_version: str
    architecture: str
    image_size: tuple[int, int]
    patch: int
    embed_dim: int
    prefix: int
    # left out of files where it is on, so that they stay readable for versions that know only bundles that merge
    merge: bool = Field(
        default=True,
        exclude_if=lambda merge: merge,
        description="whether decisions merge the stopped tokens into the class token",
    )
    merge_cells: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda side: not side,
        description="side in patches of the cells whose stopped tokens are merged; the last tokens of `prefix` are theirs",
    )
    classes: int
    class_names: tuple[str, ...] | None
    palette: tuple[tuple[int, int, int], ...] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    slide_stride: tuple[int, int]
    mode: Mode = Field(
        default="whole", description="how an image of another size is run where the caller names no mode"
    )
    keep_ratio: bool = Field(
        default=False,
        description="mode whole resizes with the image's aspect ratio, and pads at the bottom and the right",
    )
    precision: Literal["fp32", "int8", "fp8"] = Field(
        description="of the products of tokens and weights in the ONNX files; all else in them is float32"
    )
    thresholds: tuple[float, ...]
    capacities: tuple[int, ...]
    dense_macs: tuple[int, int] = Field(description="the paper's and the true count of the model without decisions")
    steps: tuple[Step, ...]
    decisions: tuple[DecisionSpec, ...]
    final: State
    taps: tuple[str, ...]
    plans: tuple[PlanSet, ...] = ()
    source: Source | None = None
    quantization: Quantization | None = Field(default=None, description="of a bundle in int8 or fp8")
    files: dict[str, FileEntry]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): patches down and across."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def tokens(self) -> int:
        """N = h·w."""
        return self.grid[0] * self.grid[1]

    @property
    def cells(self) -> int:
        """How many merged tokens of cells there are, the last ones of `prefix`."""
        side = self.merge_cells
        return -(-self.grid[0] // side) * -(-self.grid[1] // side) if side else 0

    def has_lens(self, decision: DecisionSpec) -> bool:
        """Whether the decoder reads other values of the tokens that stop there than the next step would go on with."""
        following = next((s for s in self.steps if any(spec.name == decision.keep for spec in s.inputs)), None)
        return following is not None and all(spec.name != decision.state.tokens for spec in following.inputs)

    @property
    def least_kept(self) -> int:
        """How many tokens every decision keeps at least: 1 where the decoder reads what the last block alone makes (the
        queries of EoMT), else 0."""
        known = {self.final.tokens, self.final.index, self.final.full, *self.taps}
        return int(any(spec.name not in known for spec in self.steps[-1].inputs))

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
