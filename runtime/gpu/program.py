"""A program with its arena on a device: queues what the program says, at the counts that the decisions chose.

The same operations are queued in all modes. Captured into a graph, a segment is recorded once a capacity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.program import (
    Address,
    Argument,
    Copy,
    ElementType,
    Kept,
    LaunchKernel,
    Operation,
    Program,
    RunPlan,
)
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.buffers import aligned
from dovit.runtime.gpu.device import Device, DeviceEngine, Launchers, PlanCall, address, stream_address
from dovit.runtime.gpu.resizing import ImageResizer, ResizedLabels

# what a decision's kept count may be: one of the bundle's capacities, any number, or the one that lies in `fixed_capacity`
Choice = Literal["bucketed", "exact", "fixed"]


@dataclass(frozen=True)
class SizedPlan:
    """A plan at a size that is captured: of segment `segment`, which runs on `tokens` tokens."""

    operation: RunPlan
    segment: int
    tokens: int


class LoadedProgram:
    """The program of a plan set with memory of its own on a device. Not for two threads at a time."""

    def __init__(
        self,
        manifest: Manifest,
        plans: PlanSet,
        program: Program,
        engines: Mapping[str, DeviceEngine],
        kernels: Launchers,
        device: Device,
    ) -> None:
        """`engines` by the names of the steps that are plans. Raises DovitError where the device's memory is too small."""
        self.manifest, self.plans, self.program, self.batch = manifest, plans, program, program.batch
        self.device = device
        self._engines, self._kernels = dict(engines), kernels
        self._tensors = {tensor.name: tensor for tensor in program.tensors}
        self.scratch_bytes = aligned(self._most_scratch())
        self._arena = _allocate(device, program.arena_bytes + self.scratch_bytes, plans)
        self._scratch = self._arena + program.arena_bytes
        self._logits = program.tensor("logits")
        self.resizer = ImageResizer(device, kernels, manifest.image_size, self.batch)
        self.resized_labels = ResizedLabels(
            device, kernels, self._logits.dtype, self.address("logits"), self._logits.shape
        )
        self._stream = device.create_stream()  # for what is not part of a pass
        self._write_constants()

    def address(self, name: str, offset: int = 0) -> int:
        """Where a tensor lies, or `offset` bytes behind that."""
        return self._arena + self._tensors[name].offset + offset

    def bytes(self, name: str) -> int:
        """Of a tensor at its largest."""
        return self._tensors[name].bytes

    def result_offset(self, name: str) -> int:
        """Where a tensor lies in the results, which are copied to the host in one piece."""
        return self._tensors[name].offset

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device for tensors, scratch memory and larger images, the plans' weights not counted."""
        arena = self.program.arena_bytes + self.scratch_bytes
        return arena + self.resizer.device_bytes + self.resized_labels.device_bytes

    @property
    def results(self) -> int:
        """The address of all that a caller reads after a pass, `program.result_bytes` bytes."""
        return self._arena

    @property
    def last_segment(self) -> int:
        """The number of the segment that runs on all positions again."""
        return len(self.program.segments) - 1

    def enqueue(self, segment: int, kept: int, stream: int, *, switch: int = 0, choice: Choice = "bucketed") -> None:
        """Queue segment number `segment`, whose decision has kept `kept` tokens: all of them for the first and the last.

        `switch`: the handle of the conditional node that the segment's own decision sets; `choice`: from what it chooses.
        """
        planned = self.program.segments[segment]
        recurring = choice == "bucketed" or segment in (0, self.last_segment)
        for operation in planned.operations if kept else planned.if_none_kept:
            if isinstance(operation, RunPlan):
                self._engines[operation.name].enqueue(self._call(operation, kept, recurring=recurring), stream)
            else:
                self._enqueue_other(operation, kept, switch, choice, stream)

    def _enqueue_other(self, operation: Operation, kept: int, switch: int, choice: Choice, stream: int) -> None:
        """Queue a kernel or a copy."""
        if isinstance(operation, Copy):
            source, target = self.address(operation.source), self.address(operation.target)
            self.device.copy(target, source, self.bytes(operation.source), stream)
        elif isinstance(operation, LaunchKernel):
            values = [self._value(given, kept, switch, choice) for given in operation.arguments.values()]
            getattr(self._kernels, operation.kernel)(*values, stream)

    def _value(self, argument: Argument, kept: int, switch: int, choice: Choice) -> int | str:
        if isinstance(argument, int):
            return argument
        if isinstance(argument, Kept):
            return kept + argument.kept_plus
        if isinstance(argument, Address):
            return self.address(argument.tensor, argument.offset)
        if isinstance(argument, ElementType):
            return argument.dtype
        if argument == "scratch":
            return self._scratch
        if argument == "switch":
            return switch
        if argument == "capacities":
            return self.address("capacities" if choice == "bucketed" else "fixed_capacity")
        return {"bucketed": len(self.manifest.capacities), "exact": 0, "fixed": 1}[choice]

    def _call(self, operation: RunPlan, kept: int, *, recurring: bool = True) -> PlanCall:
        bindings = (*operation.inputs, *operation.outputs)
        return PlanCall(
            addresses={binding.name: self.address(binding.tensor) for binding in bindings},
            shapes={binding.name: binding.resolve(kept) for binding in bindings},
            tokens=kept,
            profile=operation.profile(kept),
            scratch=self._scratch,
            recurring=recurring,
        )

    def sized_plans(self) -> Iterator[SizedPlan]:
        """Every plan at every size that a captured pass can have."""
        for number, segment in enumerate(self.program.segments):
            sizes = (self.program.tokens,) if number in (0, self.last_segment) else self.manifest.capacities
            for tokens in sizes:
                for operation in segment.operations if tokens else ():
                    if isinstance(operation, RunPlan):
                        yield SizedPlan(operation, number, tokens)

    def warm_up(self) -> None:
        """Run every plan once at every capacity, on zeros, and every kernel once: what they set up at their first run, such as
        code that CUDA loads when it is first used, is no part of a capture."""
        stream = stream_address(self._stream)
        self.device.clear(self._arena, self.program.arena_bytes + self.scratch_bytes, stream)
        for sized in self.sized_plans():
            self._engines[sized.operation.name].enqueue(self._call(sized.operation, sized.tokens), stream)
        self._write_constants()
        self._warm_up_kernels(stream)

    def _warm_up_kernels(self, stream: int) -> None:
        """Launch them with all tokens kept, so that each reads valid results of the one before."""
        tokens = self.program.tokens
        fixed = np.asarray([tokens], np.int64)
        self.device.copy(self.address("fixed_capacity"), address(fixed), fixed.nbytes, stream)
        for _, operation in self.program.operations:
            self._enqueue_other(operation, tokens, 0, "fixed", stream)
        self._stream.sync()  # `fixed` is no longer read

    def why_not_capturable(self, sized: SizedPlan) -> str | None:
        """What TensorRT says against a capture of a plan, after the warm-up; None: nothing."""
        call = self._call(sized.operation, sized.tokens)
        return self._engines[sized.operation.name].why_not_capturable(call, stream_address(self._stream))

    def captured_kinds(self, sized: SizedPlan) -> Sequence[str]:
        """Capture a plan and discard it: see Device.captured_kinds."""
        engine, call = self._engines[sized.operation.name], self._call(sized.operation, sized.tokens)
        return self.device.captured_kinds(lambda stream: engine.enqueue(call, stream), self._stream)

    def _write_constants(self) -> None:
        """Write what no pass changes: the program's constants, and the bundle's capacities."""
        stream = stream_address(self._stream)
        written = {constant.tensor: constant.values for constant in self.program.constants}
        values = {
            name: np.asarray(given, self._tensors[name].dtype)
            for name, given in (written | {"capacities": self.manifest.capacities}).items()
        }
        for name, host in values.items():
            self.device.copy(self.address(name), address(host), host.nbytes, stream)
        self._stream.sync()

    def read_logits(self) -> np.ndarray:
        """[B, C, h', w'] float32 of the last pass, once it is over."""
        host = np.empty(self._logits.shape, np.float32)
        self.device.copy(address(host), self.address("logits"), host.nbytes, stream_address(self._stream))
        self._stream.sync()
        return host

    def _most_scratch(self) -> int:
        needs = [engine.scratch_bytes for engine in self._engines.values()]
        for operation in self.program.all_operations:
            if isinstance(operation, LaunchKernel) and operation.scratch is not None:
                needs.append(getattr(self._kernels, f"{operation.kernel}_scratch_bytes")(*operation.scratch))
        return max(needs, default=0)


def _allocate(device: Device, size: int, plans: PlanSet) -> int:
    free = device.free_bytes
    if size > free:
        raise DovitError(
            f"the {plans.name} plans need {size / 2**20:,.0f} MiB on {device.name}, of which {free / 2**20:,.0f} MiB "
            "are free: close what else uses it, or build plans for a smaller batch"
        )
    return device.allocate(size)
