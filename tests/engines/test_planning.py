"""Programs of random chains, run symbolically: every operation finds the values that its step reads, whatever the decisions keep,
pass after pass on the same memory; and tensors that share memory are never live at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import randomised, small_config
from plan_steps import Chain, spec

from dovit.benchmarks.torch_plans import manifest_of
from dovit.engines.planning.write import plan_program
from dovit.plugins.structs import structs
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.program import ALIGNMENT, Address, Copy, Kept, LaunchKernel, Program, RunPlan
from dovit.runtime.errors import DovitError


@cache
def manifest() -> Manifest:
    """The manifest of a model with 24 tokens."""
    return manifest_of(randomised(small_config()), (0, 5, 11, 24))


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """A random valid chain."""
    return Chain(manifest(), draw)


class Arena:
    """Contents of memory: (start, end) → the name of a value."""

    def __init__(self, program: Program) -> None:
        self.places = {tensor.name: (tensor.offset, tensor.offset + tensor.bytes) for tensor in program.tensors}
        self.values: dict[tuple[int, int], str] = {}

    def write(self, tensor: str, value: str) -> None:
        start, end = self.places[tensor]
        self.values = {place: v for place, v in self.values.items() if place[1] <= start or end <= place[0]}
        self.values[start, end] = value

    def read(self, tensor: str) -> str | None:
        return self.values.get(self.places[tensor])


# a step's tensors by the fields of its kernel: (field, side, number)
FIELDS: Mapping[str, list[tuple[str, str, int]]] = {
    "decide": [("confidence", "inputs", 0), ("keep", "outputs", 0)],
    "gather": [
        *(("tokens", "inputs", 0), ("index", "inputs", 1), ("full", "inputs", 2), ("sum_before", "inputs", 3)),
        *(("stopped_before", "inputs", 4), ("kept", "outputs", 0), ("kept_index", "outputs", 1)),
        *(("full", "outputs", 2), ("sum_after", "outputs", 3), ("stopped_after", "outputs", 4)),
    ],
    "reconstruct": [
        ("full", "inputs", 0),
        ("tokens", "inputs", 1),
        ("index", "inputs", 2),
        ("full", "outputs", 0),
    ],
    "labels": [("logits", "inputs", 0), ("labels", "outputs", 0)],
}


class Pass:
    """A pass in which decision `empty_at` (from 1) keeps nothing; none where it is None."""

    def __init__(self, chain: Chain, program: Program, arena: Arena) -> None:
        self.chain, self.program, self.arena = chain, program, arena
        self.steps = {step.name: step for step in chain.steps}
        self.full = "full0"  # the latest
        self.made: set[str] = set()

    def run(self, empty_at: int | None) -> None:
        self.made = {"image", "stopped_count0"}
        self.arena.write("image", "image")
        self.arena.write("thresholds", "thresholds")
        for number, segment in enumerate(self.program.segments[:-1]):
            if number == empty_at:
                for one in segment.if_none_kept:
                    self._operation(one, early=True)
                break
            for one in segment.operations:
                self._operation(one)
        for one in self.program.segments[-1].operations:
            self._operation(one)
        decided = len(self.chain.manifest.decisions) if empty_at is None else empty_at
        for made in self.program.decisions[:decided]:
            for name in (made.confidence, made.index, made.keep):
                assert self.arena.read(name) == name
            assert self.arena.read(made.capacity) == f"capacity of {made.keep}"
        for name in ("labels", "logits", "image", "thresholds", "capacities", "stopped_count0"):
            assert self.arena.read(name) == name, name

    def _expect(self, tensor: str, value: str) -> None:
        """Where a step did not run, since no token was left, `full` is all there is."""
        expected = value if value in self.made else self.full
        assert self.arena.read(tensor) == expected, (tensor, value, self.arena.read(tensor))

    def _make(self, tensor: str, value: str) -> None:
        self.arena.write(tensor, value)
        self.made.add(value)

    def _operation(self, operation: RunPlan | LaunchKernel | Copy, *, early: bool = False) -> None:
        step = self.steps[operation.name]
        if isinstance(operation, RunPlan):
            assert [b.name for b in operation.inputs] == [s.name for s in step.inputs]
            for binding in operation.inputs:
                self._expect(binding.tensor, binding.name)
            for binding in operation.outputs:
                self._make(binding.tensor, binding.name)
        elif isinstance(operation, Copy):
            assert self.arena.read(operation.source) == self.full
            # a copy for a layer that no token reaches is what its tap is; else the kernel after it changes it
            self._make(operation.target, step.outputs[0].name) if early else self.arena.write(
                operation.target, self.full
            )
        else:
            self._kernel(operation, step)

    def _kernel(self, launch: LaunchKernel, step: PlanStep) -> None:
        arguments = launch.arguments
        assert [name for name, *_ in structs()[launch.kernel]._fields_[1:]] == list(arguments)
        at = {name: value.tensor for name, value in arguments.items() if isinstance(value, Address)}
        for field, side, number in FIELDS[launch.kernel]:
            specs = step.inputs if side == "inputs" else step.outputs
            if side == "inputs" and field == "full":
                # what a reconstruction has changed in it in place are tokens that go on, which are written again later
                assert self.arena.read(at[field]) == self.full
            elif side == "inputs":
                self._expect(at[field], specs[number].name)
        if launch.kernel == "gather":
            self._expect(at["slots"], f"slots of {step.inputs[5].name}")
            number = self._number(step.inputs[5].name)
            if number == 1:
                assert arguments["actual_count"] == 0
            else:
                assert self.arena.read(at["actual_count"]) == f"capacity of keep{number - 1}"
            assert at["stopped_after"] != at["stopped_before"], "the kernel needs two places"
            if len(step.outputs) == 3:
                self.arena.write(at["stopped_after"], "nobody's")
        if launch.kernel == "decide":
            number = self._number(step.outputs[0].name)
            assert arguments["threshold"] == Address(tensor="thresholds", offset=4 * (number - 1))
            self._make(at["slots"], f"slots of keep{number}")
            self._make(at["capacity"], f"capacity of keep{number}")
            self.arena.write(at["staying"], "nobody's")
        for field, side, number in FIELDS[launch.kernel]:
            if side == "outputs" and number < len(step.outputs):
                self._make(at[field], step.outputs[number].name)
        if launch.kernel == "gather":
            self.full = step.outputs[2].name
        if launch.kernel == "reconstruct" and at["full"] == self._place_of_full():
            self.full = step.outputs[0].name  # changed in place

    def _place_of_full(self) -> str:
        stem = self.program.segments[0].operations[0]
        assert isinstance(stem, RunPlan)
        return next(binding.tensor for binding in stem.outputs if binding.name == "full0")

    def _number(self, keep: str) -> int:
        return 1 + [decision.keep for decision in self.chain.manifest.decisions].index(keep)


@settings(deadline=None, max_examples=150)
@given(chain=chains(), paths=st.lists(st.integers(1, 4) | st.none(), min_size=1, max_size=6))
def test_every_value_is_there_when_it_is_read(chain: Chain, paths: list[int | None]) -> None:
    program = plan_program(chain.manifest, chain.steps, chain.batch)
    arena = Arena(program)
    for constant in program.constants:
        arena.write(constant.tensor, constant.tensor)
    arena.write("capacities", "capacities")
    decisions = len(chain.manifest.decisions)
    for empty_at in (None, *(path for path in paths if path is None or path <= decisions)):
        Pass(chain, program, arena).run(empty_at)


@settings(deadline=None, max_examples=150)
@given(chain=chains())
def test_lifetimes_that_overlap_share_no_memory(chain: Chain) -> None:
    program = plan_program(chain.manifest, chain.steps, chain.batch)
    for tensor in program.tensors:
        assert tensor.offset % ALIGNMENT == 0 and 0 <= tensor.offset <= program.arena_bytes - tensor.bytes
    for one, other in itertools.combinations(program.tensors, 2):
        if one.first <= other.last and other.first <= one.last:
            apart = one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset
            assert apart, (one, other)
    for number, tensors in enumerate(used(program)):
        for name in tensors:
            tensor = program.tensor(name)
            assert tensor.first <= number <= tensor.last, (name, number)
    assert program.arena_bytes <= sum(-(-t.bytes // ALIGNMENT) * ALIGNMENT for t in program.tensors)
    assert plan_program(chain.manifest, chain.steps, chain.batch) == program


def used(program: Program) -> Iterator[set[str]]:
    """The tensors of each operation."""
    for _, operation in program.operations:
        if isinstance(operation, RunPlan):
            yield {binding.tensor for binding in (*operation.inputs, *operation.outputs)}
        elif isinstance(operation, Copy):
            yield {operation.source, operation.target}
        else:
            yield {value.tensor for value in operation.arguments.values() if isinstance(value, Address)}


@settings(deadline=None, max_examples=50)
@given(chain=chains())
def test_segments_begin_and_end_with_the_token_pass(chain: Chain) -> None:
    program = plan_program(chain.manifest, chain.steps, chain.batch)
    assert Program.model_validate_json(program.model_dump_json()) == program
    assert [o.name for _, o in program.operations if not isinstance(o, Copy)] == [step.name for step in chain.steps]
    decisions = len(chain.manifest.decisions)
    assert len(program.segments) == decisions + 2
    for number, segment in enumerate(program.segments[1:-1], start=1):
        first, last = segment.operations[0], segment.operations[-1]
        assert isinstance(first, LaunchKernel) and first.name == f"gather{number}"
        assert first.arguments["capacity"] == Kept(kept_plus=0)
        assert isinstance(last, LaunchKernel) and last.kernel == ("decide" if number < decisions else "reconstruct")
        assert segment.if_none_kept[0] == first and all(isinstance(o, Copy) for o in segment.if_none_kept[1:])


def test_what_is_read_before_it_is_made_is_refused() -> None:
    image, made = spec("image", "uint8", 1, 64, 96, 3), spec("made", "float32", 1)
    step = PlanStep(name="stem", step="stem", kind="plan", inputs=(image, made), outputs=(made,))
    dense = manifest().model_copy(update={"decisions": (), "thresholds": ()})
    with pytest.raises(DovitError, match="tensor made is read, and no step before makes it"):
        plan_program(dense, [step], 1)
    twice = step.model_copy(update={"inputs": (image,), "outputs": (made, made)})
    with pytest.raises(DovitError, match="step stem makes made, which is made already"):
        plan_program(dense, [twice], 1)
