"""What the manifest says about TensorRT plans: for what they were built, and in which order they run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.tensors import TensorSpec

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16"]


class Profile(Frozen):
    """A range of kept tokens, prefix tokens not counted, that a plan was optimised for: TensorRT's min, opt and max."""

    least: int
    best: int
    most: int


class Plan(Frozen):
    """A serialized engine, and what its builder said about it."""

    file: str = Field(description="path relative to the bundle")
    profiles: tuple[Profile, ...] = Field(description="empty where every shape is fixed")
    parameters: int
    network_layers: int = Field(description="layers of the network as parsed, before any fusion")
    layers: tuple[str, ...] = Field(description="the engine's layers, as the builder lists them")
    attentions: int = Field(description="attention operations in the network")
    fused_attentions: int = Field(description="how many of them the builder recognised and handed to its fused kernels")
    weight_bytes: int
    activation_bytes: int = Field(description="scratch memory at the largest shapes")
    build_seconds: float


class PlanStep(Frozen):
    """A plan, or an operation that a kernel does between plans, and then `plan` is None.

    Inputs and outputs of the operations, in order: decide (confidence, threshold, capacities) → keep; gather (tokens,
    index, full, stopped_sum, stopped_count, keep) → tokens, index, full, stopped_sum, stopped_count; reconstruct (full,
    tokens, index) → full; labels (logits) → labels, upsampled by a whole number. Nothing makes `stopped_count0`, which is 0.
    """

    name: str
    step: str = Field(description="the step of the manifest that it is a part of")
    kind: Literal["plan", "decide", "gather", "reconstruct", "labels"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plan: Plan | None = None


class Accuracy(Frozen):
    """The lowered graphs against the float32 ones, on scenes. Shares and differences, not percent."""

    scenes: int
    lowering: str = Field(description="SHA-256 of the code that lowered and compared them")
    differences: dict[str, float] = Field(
        description="of each plan, fed with what float32 feeds it: largest difference over the largest value, with the "
        "bundle's ξ and with every token kept"
    )
    label_agreement: float = Field(description="share of equal labels, the lower of the two")
    kept_agreement: tuple[float, ...] = Field(description="share of tokens on whose fate each decision agrees")
    miou: tuple[float, float] | None = Field(
        description="float32's and the lowered one's, in percent, against the scenes' labels where the classes are theirs"
    )


class PlanSet(Frozen):
    """The plans of one flavour and precision, and how a pass runs through them."""

    flavour: Flavour
    version: str = Field(description="of TensorRT or TensorRT-RTX, exact")
    cuda: int | None = Field(description="CUDA's major version that it came with, where that is known")
    compute_capabilities: tuple[str, ...] = Field(description="such as 8.9; empty for a portable plan")
    precision: Precision
    float32_nodes: tuple[str, ...] = Field(
        default=(), description="of fp16: nodes that stay float32, since fp16 cannot hold their values"
    )
    batch: int
    plugin_version: str | None = Field(description="of the plugin library in the plans, where there is one")
    workspace_mib: int | None
    optimisation_level: int | None
    user_allocation: bool = Field(
        default=False,
        description="built with REQUIRE_USER_ALLOCATION, which TensorRT-RTX wants of plans that are captured",
    )
    steps: tuple[PlanStep, ...]
    program: str | None = Field(
        default=None,
        description="path of the program's file, relative to the bundle: see docs/program.md. None for plans with plugins, and "
        "in bundles of a dovit that wrote none",
    )
    accuracy: Accuracy | None = None

    @property
    def name(self) -> str:
        """Such as `tensorrt-rtx fp16`."""
        return f"{self.flavour} {self.precision}"

    @property
    def files(self) -> tuple[str, ...]:
        """The plans' files, and the program's."""
        plans = tuple(step.plan.file for step in self.steps if step.plan)
        return plans if self.program is None else (*plans, self.program)

    @property
    def build_seconds(self) -> float:
        """What building took, all plans together, on however many processes."""
        return sum(step.plan.build_seconds for step in self.steps if step.plan)
