"""A plan set's steps as operations, grouped by the decision that their sizes depend on.

Segment 0 runs on all tokens: the stem, and the first decision. Segment n runs on what decision n has left: its gather, its block,
the next decision; the last of these ends with the reconstruction. What comes after runs on all positions again: the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dovit.plugins.structs import structs
from dovit.runtime.bundle.dimensions import decided_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.program import (
    Address,
    Argument,
    Binding,
    Copy,
    ElementType,
    Kept,
    LaunchKernel,
    Operation,
    RunPlan,
    Size,
)
from dovit.runtime.bundle.tensors import DType, TensorSpec
from dovit.runtime.errors import DovitError

UNUSED_FULL = "unused_full"  # takes what a gather writes to `full` where a decision's lens has written to it instead


@dataclass(frozen=True)
class Planned:
    """An operation, and the tensors of the arena that it reads and writes."""

    operation: Operation
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass
class SegmentPlan:
    """The operations of a segment, and those that take their place where its decision keeps no token."""

    operations: list[Planned] = field(default_factory=list)
    if_none_kept: list[Planned] = field(default_factory=list)


@dataclass(frozen=True)
class Sized:
    """A tensor at its largest."""

    dtype: DType
    shape: tuple[int, ...]


class Operations:
    """The operations of a plan set for `batch` images. `segments`: in their order; `tensors`: by name in the arena."""

    def __init__(self, manifest: Manifest, steps: Sequence[PlanStep], batch: int) -> None:
        """Raises DovitError where the steps cannot be run one after the other."""
        self._manifest, self._batch = manifest, batch
        self._decided = decided_dims(manifest)
        self._number = {decision.keep: n for n, decision in enumerate(manifest.decisions, start=1)}
        self._place: dict[str, str] = {}  # in the arena, of tensors that do not have a place of their own name
        self.segments = [SegmentPlan() for _ in range(len(manifest.decisions) + 2)]
        self.tensors = self._given()
        self._add_steps(steps)
        self._add_empty_branches()

    def _given(self) -> dict[str, Sized]:
        """Tensors that the host writes, and those between kernels that no step names."""
        manifest, batch, tokens = self._manifest, self._batch, self._manifest.tokens
        decisions = len(manifest.decisions)
        given = {
            "image": Sized("uint8", (batch, *manifest.image_size, 3)),
            "thresholds": Sized("float32", (max(decisions, 1),)),
            # room for as many as there can be: dovit-calibrate may choose others
            "capacities": Sized("int64", (tokens + 1,)),
            "fixed_capacity": Sized("int64", (1,)),
            "stopped_count0": Sized("int64", (1,)),
            "unused_count": Sized("int64", (1,)),  # which the last gather writes
        }
        for number in range(1, decisions + 1):
            given[f"capacity{number}"] = Sized("int32", (1,))
            given[f"slots{number}"] = Sized("int32", (batch, tokens))
            given[f"staying{number}"] = Sized("int32", (batch,))
        for decision in manifest.decisions:
            self._place[decision.threshold] = "thresholds"
        return given

    def _add_steps(self, steps: Sequence[PlanStep]) -> None:
        reached = 0
        for step in steps:
            number = self._settled_by(step)
            last = number < reached
            reached = max(reached, number)
            segment = self.segments[-1 if last else number]
            for spec in step.inputs:
                self._named(spec.name)  # made before
            for spec in step.outputs:
                self._add_tensor(step, spec)
            if step.kind == "plan":
                segment.operations.append(self._plan(step))
            elif step.kind == "decide":
                segment.operations.append(self._decide(step, number))
            elif step.kind == "gather":
                segment.operations.append(self._gather(step, number))
            elif step.kind == "reconstruct":
                segment.operations += self._reconstruct(step, number)
            else:
                segment.operations.append(self._labels(step))

    def _add_empty_branches(self) -> None:
        """Where no token is kept, the gather hands the stopped ones to `full`, and a tap of a layer that no token reaches is a
        copy of it: every position has its final value."""
        between = self.segments[1:-1]
        copies = [[p for p in s.operations if isinstance(p.operation, Copy)] for s in between]
        for number, segment in enumerate(between):
            gathers = [
                p
                for p in segment.operations
                if isinstance(p.operation, LaunchKernel) and p.operation.kernel == "gather"
            ]
            segment.if_none_kept = [*gathers, *(copy for later in copies[number:] for copy in later)]

    def _settled_by(self, step: PlanStep) -> int:
        """The last decision that a step's input sizes depend on; 0 for none."""
        names = {size for spec in step.inputs for size in spec.shape if isinstance(size, str)}
        return max((self._decided[name][0] for name in names if name in self._decided), default=0)

    def _add_tensor(self, step: PlanStep, spec: TensorSpec) -> None:
        """A tensor that a kernel changes in place keeps the place that it began in."""
        kept = {name: more + self._manifest.tokens for name, (_, more) in self._decided.items()}
        place = self._in_place_of(step, spec)
        if place is not None:
            self._place[spec.name] = self._named(place)
            return
        if spec.name in self.tensors:
            raise DovitError(f"step {step.name} makes {spec.name}, which is made already: export the bundle again")
        self.tensors[spec.name] = Sized(spec.dtype, spec.resolve(kept | {"batch": self._batch}))

    def _in_place_of(self, step: PlanStep, spec: TensorSpec) -> str | None:
        if step.kind == "gather":
            _, _, full, rest = _gathered(step)
            if spec == full:
                return step.inputs[2].name
            if spec in rest[:1]:  # the sums of the stopped tokens
                return step.inputs[3].name
        if step.kind == "reconstruct" and spec.name not in self._manifest.taps:
            # what `full` says of the kept tokens is not needed after this
            return step.inputs[0].name
        return None

    def _named(self, name: str) -> str:
        """The place in the arena of a step's tensor. Raises DovitError where nothing has made it."""
        place = self._place.get(name, name)
        if place not in self.tensors:
            raise DovitError(f"tensor {name} is read, and no step before makes it: export the bundle again")
        return place

    def _sizes(self, spec: TensorSpec) -> tuple[Size, ...]:
        sizes: list[Size] = []
        for size in spec.shape:
            if isinstance(size, int):
                sizes.append(size)
            else:
                sizes.append(self._batch if size == "batch" else Kept(kept_plus=self._decided[size][1]))
        return tuple(sizes)

    def _plan(self, step: PlanStep) -> Planned:
        def bound(specs: Sequence[TensorSpec]) -> tuple[Binding, ...]:
            return tuple(
                Binding(name=s.name, tensor=self._named(s.name), dtype=s.dtype, shape=self._sizes(s)) for s in specs
            )

        inputs, outputs = bound(step.inputs), bound(step.outputs)
        profiles = tuple(profile.most for profile in step.plan.profiles) if step.plan else ()
        run = RunPlan(kind="plan", name=step.name, inputs=inputs, outputs=outputs, profiles=profiles)
        return Planned(run, tuple(b.tensor for b in inputs), tuple(b.tensor for b in outputs))

    def _kernel(
        self,
        step: PlanStep,
        kernel: str,
        reads: dict[str, Argument],
        writes: dict[str, Argument],
        sizes: dict[str, Argument],
        scratch: tuple[int, int, int] | None = None,
    ) -> Planned:
        """A launch with the arguments of dovit_kernels.h: of those that are tensors, some are read and some written."""
        given = reads | writes | sizes
        names = [name for name, *_ in structs()[kernel]._fields_[1:]]
        launch = LaunchKernel(
            kind="kernel",
            name=step.name,
            kernel=kernel,
            arguments={name: given.pop(name) for name in names},
            scratch=scratch,
        )
        assert not given, f"kernel {kernel} has no {given}"
        return Planned(launch, _tensors(reads), _tensors(writes))

    def _at(self, spec: TensorSpec) -> Address:
        return Address(tensor=self._named(spec.name))

    def _decide(self, step: PlanStep, number: int) -> Planned:
        """What decides on the tokens of segment `number`."""
        confidence, threshold, _ = step.inputs
        chosen = self._number[step.outputs[0].name]
        reads: dict[str, Argument] = {
            "confidence": self._at(confidence),
            "threshold": Address(tensor=self._named(threshold.name), offset=4 * (chosen - 1)),
        }
        writes: dict[str, Argument] = {
            "staying": Address(tensor=f"staying{chosen}"),
            "keep": self._at(step.outputs[0]),
            "slots": Address(tensor=f"slots{chosen}"),
            "capacity": Address(tensor=f"capacity{chosen}"),
        }
        sizes: dict[str, Argument] = {
            "capacities": "capacities",
            "capacity_count": "capacity_count",
            "batch": self._batch,
            "count": Kept(kept_plus=0) if number else self._manifest.tokens,
            "switch_handle": "switch",
        }
        return self._kernel(step, "decide", reads, writes, sizes)

    def _gather(self, step: PlanStep, number: int) -> Planned:
        manifest, batch = self._manifest, self._batch
        tokens, index, before, total, count, keep = step.inputs
        new_tokens, new_index, full, rest = _gathered(step)
        if full is None and UNUSED_FULL not in self.tensors:
            self.tensors[UNUSED_FULL] = Sized(before.dtype, (batch, manifest.tokens, manifest.embed_dim))
        full_at = Address(tensor=UNUSED_FULL) if full is None else self._at(full)
        reads: dict[str, Argument] = {
            "tokens": self._at(tokens),
            "index": self._at(index),
            "slots": Address(tensor=f"slots{self._number[keep.name]}"),
            # where nothing is merged into the class token, no sum is needed: the kernel is given none
            "sum_before": self._at(total) if manifest.merge else 0,
            "stopped_before": self._at(count),
            # how many tokens came is known on the device only: any capacity may have been chosen before
            "actual_count": 0 if number == 1 else Address(tensor=f"capacity{number - 1}"),
        }
        writes: dict[str, Argument] = {
            "kept": self._at(new_tokens),
            "kept_index": self._at(new_index),
            "full": full_at,
            "sum_after": self._at(rest[0] if rest else total) if manifest.merge else 0,
            "stopped_after": self._at(rest[1]) if rest else Address(tensor="unused_count"),
        }
        sizes: dict[str, Argument] = {
            "type": _element(tokens),
            "batch": batch,
            "count": manifest.tokens,
            "capacity": Kept(kept_plus=0),
            "prefix": manifest.prefix,
            "positions": manifest.tokens,
            "channels": manifest.embed_dim,
            "cell_side": manifest.merge_cells,
            "columns": manifest.image_size[1] // manifest.patch,
            "scratch": "scratch",
        }
        planned = self._kernel(step, "gather", reads, writes, sizes, (batch, manifest.tokens, manifest.embed_dim))
        # changed in place, so it is the same memory as before
        return Planned(planned.operation, (*planned.reads, full_at.tensor), planned.writes)

    def _reconstruct(self, step: PlanStep, number: int) -> list[Planned]:
        manifest = self._manifest
        full, tokens, index = step.inputs
        made = self._named(step.outputs[0].name)
        operations = []
        if made != self._named(full.name):  # a tap: all positions as they are now
            copy = Copy(kind="copy", name=step.name, source=self._named(full.name), target=made)
            operations.append(Planned(copy, (copy.source,), (copy.target,)))
        planned = self._kernel(
            step,
            "reconstruct",
            {"tokens": self._at(tokens), "index": self._at(index)},
            {"full": Address(tensor=made)},
            {
                "type": _element(tokens),
                "batch": self._batch,
                "count": Kept(kept_plus=0) if number else manifest.tokens,
                "prefix": self._prefix(tokens),
                "positions": manifest.tokens,
                "channels": manifest.embed_dim,
            },
        )
        return [*operations, Planned(planned.operation, (*planned.reads, made), planned.writes)]

    def _prefix(self, tokens: TensorSpec) -> int:
        """How many prefix tokens `tokens` [B, P+M, E] has. A layer of the stem that is tapped has no merged tokens of cells."""
        length = tokens.shape[1]
        return length - self._manifest.tokens if isinstance(length, int) else self._manifest.prefix

    def _labels(self, step: PlanStep) -> Planned:
        [logits], [labels] = step.inputs, step.outputs
        batch, classes, height, width = logits.resolve({"batch": self._batch})
        return self._kernel(
            step,
            "labels",
            {"logits": self._at(logits)},
            {"labels": self._at(labels)},
            {
                "type": _element(logits),
                "batch": batch,
                "classes": classes,
                "height": height,
                "width": width,
                "scale": labels.resolve({"batch": self._batch})[1] // height,
            },
        )


def _gathered(step: PlanStep) -> tuple[TensorSpec, TensorSpec, TensorSpec | None, list[TensorSpec]]:
    """A gather's outputs: tokens, index, full [B, N, E], and sum [B, E] and count of stopped tokens, which the last gather may
    not have. None for `full` where a decision has a lens: nothing reads it then."""
    tokens, index, *rest = step.outputs
    full = rest.pop(0) if rest and len(rest[0].shape) == 3 else None
    return tokens, index, full, rest


def _element(spec: TensorSpec) -> ElementType:
    return ElementType.model_validate({"dtype": spec.dtype})


def _tensors(arguments: dict[str, Argument]) -> tuple[str, ...]:
    return tuple(value.tensor for value in arguments.values() if isinstance(value, Address))
