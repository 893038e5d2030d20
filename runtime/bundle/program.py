"""A program: the operations of one pass over a plan set, with their tensors in one block of device memory. See docs/program.md.

`dovit.engines.planning` writes it, the runtimes execute it. Only bounds are checked here: that every address lies inside the
block and every name exists. Whether the operations compute the model is not checked, as with a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dovit.plugins.structs import structs
from dovit.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.tensors import DType, itemsize
from dovit.runtime.errors import DovitError, describe_field
from dovit.runtime.files import read_regular

ALIGNMENT = 256  # bytes, as the CUDA allocator's own
MAX_BYTES = 1 << 46
MAX_PROGRAM_BYTES = 64 << 20
INPUTS = ("image", "thresholds", "capacities", "fixed_capacity")  # tensors that the host writes
RESULTS = ("labels", "logits")  # and those that it reads, besides the decisions'

Natural = Annotated[int, Field(ge=0, lt=1 << 31)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]


class Strict(BaseModel):
    """A part of the program: types are taken as they are written, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Kept(Strict):
    """A size that depends on a decision: the tokens that the segment runs on, plus `kept_plus`."""

    kept_plus: Natural


Size = Natural | Kept


class ArenaTensor(Strict):
    """A tensor in the arena. `shape`: at its largest. It is needed from operation `first` to operation `last`, counted over the
    operations of all segments."""

    name: str
    dtype: DType
    shape: tuple[Natural, ...]
    offset: Annotated[int, Field(ge=0, le=MAX_BYTES, multiple_of=ALIGNMENT)]
    first: Natural
    last: Natural

    @property
    def bytes(self) -> int:
        """At its largest."""
        return math.prod(self.shape) * itemsize(self.dtype)


class Constant(Strict):
    """What is written into a tensor once, when the program is loaded, and never changes."""

    tensor: str  # of int32 or int64
    values: tuple[Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)], ...]


class Address(Strict):
    """A place in the arena: `offset` bytes behind the start of a tensor."""

    tensor: str
    offset: Bytes = 0


class ElementType(Strict):
    """The number by which kernels know a type (DOVIT_FLOAT32 and so on)."""

    dtype: Literal["float32", "float16", "bfloat16"]


# what a pass sets: where scratch memory lies; the list of counts that a decision may choose from, on the device, and how many
# those are (0: any); the handle of the conditional node that the decision sets, 0 outside of a graph
Variable = Literal["scratch", "capacities", "capacity_count", "switch"]
Argument = Natural | Kept | Address | ElementType | Variable


class Binding(Strict):
    """A tensor of a plan, by the engine's name of it, and where it lies."""

    name: str
    tensor: str
    dtype: DType
    shape: tuple[Size, ...]

    def resolve(self, kept: int) -> tuple[int, ...]:
        """Its shape where the segment runs on `kept` tokens."""
        return tuple(size if isinstance(size, int) else kept + size.kept_plus for size in self.shape)


class RunPlan(Strict):
    """Run the plan of the plan set's step `name`. `profiles`: the largest kept count of each of its optimisation profiles,
    rising; none where every shape is fixed."""

    kind: Literal["plan"]
    name: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    profiles: tuple[Natural, ...]

    def profile(self, kept: int) -> int:
        """The number of the first profile that holds `kept` tokens."""
        return next((n for n, most in enumerate(self.profiles) if kept <= most), 0)


class LaunchKernel(Strict):
    """Launch `kernel` of dovit_kernels.h. `arguments`: a value for each field of its struct but `size`, in their order.
    `scratch`: the arguments of the library's function dovit_{kernel}_scratch_bytes, where the kernel has one."""

    kind: Literal["kernel"]
    name: str
    kernel: str
    arguments: dict[str, Argument]
    scratch: tuple[Natural, Natural, Natural] | None = None


class Copy(Strict):
    """Copy all of `source`, a tensor, to `target`, which is as large."""

    kind: Literal["copy"]
    name: str
    source: str
    target: str


Operation = Annotated[RunPlan | LaunchKernel | Copy, Field(discriminator="kind")]


class Segment(Strict):
    """Operations whose sizes one decision settles. `if_none_kept` is what runs in their place where it keeps no token."""

    operations: tuple[Operation, ...]
    if_none_kept: tuple[Operation, ...] = ()


class DecisionTensors(Strict):
    """The tensors that say what a decision saw and chose: its kept count [1] int32, and [B, M] each of confidence, position of
    the token, and kept tokens, of which the first B·K count."""

    capacity: str
    confidence: str
    index: str
    keep: str


class Program(Strict):
    """See docs/program.md."""

    version: Literal[1] = 1
    batch: Annotated[int, Field(ge=1, lt=1 << 31)]
    tokens: Annotated[int, Field(ge=1, lt=1 << 31)]
    arena_bytes: Bytes
    result_bytes: Bytes
    tensors: tuple[ArenaTensor, ...]
    constants: tuple[Constant, ...]
    decisions: tuple[DecisionTensors, ...]
    segments: tuple[Segment, ...]

    def tensor(self, name: str) -> ArenaTensor:
        """The tensor of this name. Raises ValueError where there is none."""
        found = next((tensor for tensor in self.tensors if tensor.name == name), None)
        if found is None:
            raise ValueError(f"no tensor {name!r} in the arena")
        return found

    @property
    def operations(self) -> Iterator[tuple[int, Operation]]:
        """Every operation, `if_none_kept` left out, with the number of its segment."""
        return ((number, one) for number, segment in enumerate(self.segments) for one in segment.operations)

    @property
    def all_operations(self) -> Iterator[Operation]:
        """Every operation, `if_none_kept` too: what a check has to look at."""
        return (one for segment in self.segments for one in (*segment.operations, *segment.if_none_kept))

    @model_validator(mode="after")
    def _within_bounds(self) -> Program:
        if len({tensor.name for tensor in self.tensors}) < len(self.tensors):
            raise ValueError("two tensors of one name")
        for tensor in self.tensors:
            _expect(tensor.offset + tensor.bytes, self.arena_bytes, f"the end of tensor {tensor.name}, in bytes")
        _expect(self.result_bytes, self.arena_bytes, "result_bytes")
        if len(self.segments) != len(self.decisions) + 2:
            raise ValueError(f"{len(self.segments)} segments, {len(self.decisions) + 2} expected")
        for name in (*INPUTS, *RESULTS):
            self.tensor(name)
        _expect(4 * len(self.decisions), self.tensor("thresholds").bytes, "the thresholds, in bytes")
        _expect(8, self.tensor("fixed_capacity").bytes, "fixed_capacity, in bytes")
        for decision in self.decisions:
            sizes = {decision.capacity: 4} | dict.fromkeys(
                (decision.confidence, decision.index, decision.keep), 4 * self.batch * self.tokens
            )
            for name, size in sizes.items():
                _expect(size, self.tensor(name).bytes, f"what is read of {name}, in bytes")
                _expect(self.tensor(name).offset + size, self.result_bytes, f"the end of result {name}, in bytes")
        labels = self.tensor("labels")
        _expect(labels.offset + labels.bytes, self.result_bytes, "the end of result labels, in bytes")
        for constant in self.constants:
            tensor = self.tensor(constant.tensor)
            if tensor.dtype not in ("int32", "int64"):
                raise ValueError(f"constant {tensor.name}: int32 or int64 expected, got {tensor.dtype}")
            _expect(len(constant.values) * itemsize(tensor.dtype), tensor.bytes, f"constant {tensor.name}, in bytes")
        for operation in self.all_operations:
            self._check(operation)
        return self

    def _check(self, operation: Operation) -> None:
        if isinstance(operation, RunPlan):
            for binding in (*operation.inputs, *operation.outputs):
                size = math.prod(binding.resolve(self.tokens)) * itemsize(binding.dtype)
                _expect(size, self.tensor(binding.tensor).bytes, f"{binding.name} of plan {operation.name}, in bytes")
            if list(operation.profiles) != sorted(operation.profiles):
                raise ValueError(f"the profiles of plan {operation.name} do not rise")
        elif isinstance(operation, Copy):
            size, room = self.tensor(operation.source).bytes, self.tensor(operation.target).bytes
            _expect(size, room, f"copy {operation.name}, in bytes")
        else:
            if operation.kernel not in structs():
                raise ValueError(f"dovit_kernels.h has no kernel {operation.kernel!r}: {', '.join(structs())}")
            wanted = [name for name, *_ in structs()[operation.kernel]._fields_[1:]]
            if list(operation.arguments) != wanted:
                given = ", ".join(operation.arguments)
                raise ValueError(f"kernel {operation.kernel} takes {', '.join(wanted)}, not {given}")
            for name, value in operation.arguments.items():
                if isinstance(value, Kept):
                    _expect(self.tokens + value.kept_plus, (1 << 31) - 1, f"{name} of {operation.name}")
                if isinstance(value, Address):
                    _expect(value.offset + 1, self.tensor(value.tensor).bytes, f"{name} of {operation.name}, in bytes")


def _expect(value: int, most: int, what: str) -> None:
    if value > most:
        raise ValueError(f"{what}: at most {most} expected, got {value}")


def read_program(bundle: Bundle, plans: PlanSet) -> Program:
    """The program of a plan set of `bundle`, whose files were checked. Raises DovitError where it has none, or one that does not
    fit the manifest."""
    again = f"build the plans again: dovit-export --engine {bundle.root} --backend {plans.flavour} --precision {plans.precision}"
    if plans.program is None:
        raise DovitError(
            f"{bundle.root}: the {plans.name} plans have no program, for an older dovit has built them; {again}"
        )
    file = bundle.path(plans.program)
    try:
        program = Program.model_validate_json(read_regular(file, MAX_PROGRAM_BYTES))
        check_fits(program, bundle.manifest, plans)
    except OSError as error:
        raise DovitError(f"{file}: cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise DovitError(f"{file}: {describe_field(error, again, whole='program')}") from None
    except ValueError as error:
        raise DovitError(f"{file}: does not fit {MANIFEST_NAME} ({error}); {again}") from None
    return program


def check_fits(program: Program, manifest: Manifest, plans: PlanSet) -> None:
    """Raises ValueError where the manifest says something else about what a host writes and reads, or about the plans."""
    height, width = manifest.image_size
    image, labels, logits = (program.tensor(name) for name in ("image", "labels", "logits"))
    stated = {
        "batch": (program.batch, plans.batch),
        "tokens": (program.tokens, manifest.tokens),
        "decisions": (len(program.decisions), len(manifest.decisions)),
        "image": ((image.dtype, image.shape), ("uint8", (program.batch, height, width, 3))),
        "labels": (labels.shape, (program.batch, height, width)),
        "logits": ((logits.dtype, logits.shape[:2]), ("float32", (program.batch, manifest.classes))),
    }
    for what, (found, expected) in stated.items():
        if found != expected:
            raise ValueError(f"{what}: {expected} expected, got {found}")
    if labels.dtype not in ("uint8", "int16", "int32", "int64") or len(logits.shape) != 4:
        raise ValueError(f"labels are {labels.dtype}, logits have {len(logits.shape)} dimensions")
    _expect(8 * len(manifest.capacities), program.tensor("capacities").bytes, "the capacities, in bytes")
    steps = {step.name: step for step in plans.steps if step.plan is not None}
    for operation in program.all_operations:
        if not isinstance(operation, RunPlan):
            continue
        step = steps.get(operation.name)
        if step is None or step.plan is None:
            raise ValueError(f"there is no plan {operation.name!r}")
        for bindings, specs in ((operation.inputs, step.inputs), (operation.outputs, step.outputs)):
            found, expected = [(b.name, b.dtype) for b in bindings], [(s.name, s.dtype) for s in specs]
            if found != expected:
                raise ValueError(f"plan {operation.name}: tensors {expected} expected, got {found}")
        if len(operation.profiles) != len(step.plan.profiles):
            raise ValueError(
                f"plan {operation.name} has {len(step.plan.profiles)} profiles, not {len(operation.profiles)}"
            )
