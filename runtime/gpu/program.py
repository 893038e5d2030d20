"""One pass over the chain as queued work: which operation with which places and sizes, given what the decisions kept.

The same queueing serves all modes. Captured into a graph, a segment is recorded once a capacity, and the number of tokens before
its gather is read on the device, for any capacity may have come before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dovit.runtime.bundle.dimensions import kept_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanSet, PlanStep
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.addresses import address, stream_address
from dovit.runtime.gpu.device import Device, DeviceEngine, Launchers
from dovit.runtime.gpu.memory import (
    ONLY_CAPACITY,
    SPARE_COUNT,
    MemoryPlan,
    capacity_name,
    plan_memory,
    slots_name,
    staying_name,
    tensor_bytes,
)
from dovit.runtime.gpu.own_labels import OwnLabels
from dovit.runtime.gpu.resizing import Resizing
from dovit.runtime.gpu.segments import cut_segments

# what a decision's kept count may be: one of the bundle's capacities, any number, or the one that lies in ONLY_CAPACITY
Choice = Literal["bucketed", "exact", "fixed"]


@dataclass(frozen=True)
class PlanRun:
    """A plan at a size that is captured: in segment `number` with `kept` tokens, or in the decoder, which comes after the last
    segment and for which `kept` is 0. `tokens`: what it runs on."""

    step: PlanStep
    number: int
    kept: int
    tokens: int


class Program:
    """A plan set with its memory on a device. Not for two threads at a time."""

    def __init__(
        self,
        manifest: Manifest,
        plans: PlanSet,
        engines: Mapping[str, DeviceEngine],
        kernels: Launchers,
        device: Device,
    ) -> None:
        """`engines` by the names of the steps that are plans. Raises DovitError where the device's memory is too small."""
        self.manifest, self.plans, self.batch = manifest, plans, plans.batch
        self.segments = cut_segments(plans.steps, len(manifest.decisions))
        self.device = device
        self._engines, self._kernels = dict(engines), kernels
        self.sizes = tensor_bytes(manifest, plans.steps, self.batch)
        self.memory = plan_memory(manifest, plans.steps, self.batch, self._scratch_bytes())
        self._base = _allocate(device, self.memory, plans)
        self.resizing = Resizing(device, kernels, manifest.image_size, self.batch)
        [self._logits] = [s for step in plans.steps for s in step.outputs if s.name == "logits"]
        self.own_labels = OwnLabels(device, kernels, self._logits.dtype, self.place("logits"), self._logits_shape)
        self._stream = device.create_stream()  # for what is not part of a pass
        self._write_constants()

    def place(self, name: str) -> int:
        """The address of a tensor."""
        return self._base + self.memory.offsets[name]

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device for tensors, scratch memory and larger images, the plans' weights not counted."""
        return self.memory.size + self.resizing.device_bytes + self.own_labels.device_bytes

    @property
    def results(self) -> int:
        """The address of all that a caller reads after a pass, `memory.results` bytes."""
        return self._base

    def enqueue(
        self,
        number: int,
        kept: int,
        stream: int,
        *,
        came: int | None = None,
        switch: int = 0,
        choice: Choice = "bucketed",
    ) -> None:
        """Queue segment `number`, of which decision `number` has kept `kept` tokens (all of them for segment 0).

        `came`: the tokens before that decision, None where only the device knows. `switch`: the handle that the
        segment's own decision sets; `choice`: from what it chooses. With no token kept, what is left is to hand `full`
        to the decoder.
        """
        self._enqueue_steps(number, kept, came, switch, choice, stream)
        if kept == 0:
            self._fill_taps(number, stream)

    def _enqueue_steps(
        self, number: int, kept: int, came: int | None, switch: int, choice: Choice, stream: int, *, plans: bool = True
    ) -> None:
        """The plans, unless they are left out, and the kernels of a segment."""
        dims = self._dims(number, kept)
        for step in self.segments.after[number]:
            if step.kind == "gather":
                self._gather(step, number, kept, came, stream)
            elif kept == 0:
                continue
            elif step.kind == "decide":
                self._decide(step, number + 1, kept, switch, choice, stream)
            elif step.kind == "reconstruct":
                self._reconstruct(step, kept, stream)
            elif step.kind == "labels":
                self._labels(step, stream)
            elif plans:
                self._run(step, dims, stream, lasting=choice == "bucketed" or number == 0)

    def enqueue_decoder(self, stream: int) -> None:
        """Queue what runs on all positions again."""
        for step in self.segments.decoder:
            if step.kind == "labels":
                self._labels(step, stream)
            else:
                self._run(step, self._dims(0, 0), stream)

    def plan_runs(self) -> Iterator[PlanRun]:
        """Every plan at every size that a captured pass can have."""
        tokens, last = self.manifest.tokens, len(self.segments.after)
        for number, steps in enumerate((*self.segments.after, self.segments.decoder)):
            for kept in self.manifest.capacities if 0 < number < last else (tokens,):
                for step in steps if kept else ():
                    if step.kind == "plan":
                        yield PlanRun(step, number, 0 if number == last else kept, kept)

    def warm_up(self) -> None:
        """Run every plan once at every capacity, on zeros, and every kernel once: what they set up at their first run, such as
        code that CUDA loads when it is first used, is no part of a capture."""
        device, stream = self.device, self._stream
        device.clear(self._base, self.memory.size, stream_address(stream))
        for run in self.plan_runs():
            self._run(run.step, self._dims_of(run), stream_address(stream))
        self._write_constants()
        self._warm_up_kernels(stream_address(stream))
        stream.sync()

    def _warm_up_kernels(self, stream: int) -> None:
        """With all tokens kept throughout, so that each finds what the one before has made."""
        tokens = self.manifest.tokens
        only = np.asarray([tokens], np.int64)
        self.device.copy(self.place(ONLY_CAPACITY), address(only), only.nbytes, stream)
        for number in range(len(self.segments.after)):
            self._enqueue_steps(number, tokens, tokens, 0, "fixed", stream, plans=False)
        for step in self.segments.decoder:
            if step.kind == "labels":
                self._labels(step, stream)
        self._stream.sync()  # `only` is no longer read

    def why_not_capturable(self, run: PlanRun) -> str | None:
        """What TensorRT says against a capture of `run`, after the warm-up; None: nothing."""
        dims, scratch = self._dims_of(run), self.place("scratch")
        return self._engines[run.step.name].why_not_capturable(dims, scratch, stream_address(self._stream))

    def captured_kinds(self, run: PlanRun) -> Sequence[str]:
        """Capture `run` and discard it: see Device.captured_kinds."""
        return self.device.captured_kinds(lambda stream: self._run(run.step, self._dims_of(run), stream), self._stream)

    def _dims_of(self, run: PlanRun) -> dict[str, int]:
        return self._dims(run.number if run.number < len(self.segments.after) else 0, run.kept)

    def _dims(self, number: int, kept: int) -> dict[str, int]:
        dims = {"batch": self.batch, "capacities": len(self.manifest.capacities)}
        return dims | (kept_dims(self.manifest, number, kept) if number else {})

    def _write_constants(self) -> None:
        """What every pass finds and none changes: the capacities, and that nothing has stopped at first."""
        stream = self._stream
        capacities = np.asarray(self.manifest.capacities, np.int64)
        self.device.copy(self.place("capacities"), address(capacities), capacities.nbytes, stream_address(stream))
        self.device.clear(self.place("stopped_count0"), self.sizes["stopped_count0"], stream_address(stream))
        stream.sync()

    def read_logits(self) -> np.ndarray:
        """[B, C, h', w'] float32 of the last pass, once it is over."""
        stream, size = self._stream, self.sizes["logits"]
        host = np.empty(size, np.uint8)
        self.device.copy(address(host), self.place("logits"), size, stream_address(stream))
        stream.sync()
        return host.view(np.float32).reshape(self._logits_shape)

    @property
    def _logits_shape(self) -> tuple[int, ...]:
        return self._logits.resolve(self._dims(0, 0))

    def _run(self, step: PlanStep, dims: Mapping[str, int], stream: int, *, lasting: bool = True) -> None:
        places = {spec.name: self._argument(spec.name) for spec in (*step.inputs, *step.outputs)}
        self._engines[step.name].enqueue(places, dims, self.place("scratch"), stream, lasting=lasting)

    def _argument(self, name: str) -> int:
        for number, decision in enumerate(self.manifest.decisions):
            if name == decision.threshold:
                return self.place("thresholds") + 4 * number
        return self.place(name)

    def _decide(self, step: PlanStep, number: int, count: int, switch: int, choice: Choice, stream: int) -> None:
        confidence, threshold, _ = (self._argument(spec.name) for spec in step.inputs)
        capacities, allowed = self.place("capacities"), len(self.manifest.capacities)
        if choice != "bucketed":
            capacities, allowed = self.place(ONLY_CAPACITY), int(choice == "fixed")
        self._kernels.decide(
            confidence,
            threshold,
            capacities,
            allowed,
            self.batch,
            count,
            self.place(staying_name(number)),
            self.place(step.outputs[0].name),
            self.place(slots_name(number)),
            self.place(capacity_name(number)),
            switch,
            stream,
        )

    def _gather(self, step: PlanStep, number: int, kept: int, came: int | None, stream: int) -> None:
        tokens, index, _, total, count, _ = (self.place(spec.name) for spec in step.inputs)
        new_tokens, new_index, full, *rest = (self.place(spec.name) for spec in step.outputs)
        new_total, new_count = rest or (total, self.place(SPARE_COUNT))
        if number == 1:
            came = self.manifest.tokens
        actual = self.place(capacity_name(number - 1)) if came is None else 0
        self._kernels.gather(
            step.inputs[0].dtype,
            tokens,
            index,
            self.place(slots_name(number)),
            new_tokens,
            new_index,
            full,
            total,
            new_total,
            count,
            new_count,
            actual,
            self.batch,
            self.manifest.tokens if came is None else came,
            kept,
            self.manifest.prefix,
            self.manifest.tokens,
            self.manifest.embed_dim,
            self.place("scratch"),
            stream,
        )

    def _reconstruct(self, step: PlanStep, kept: int, stream: int) -> None:
        full, tokens, index = (self.place(spec.name) for spec in step.inputs)
        out = self.place(step.outputs[0].name)
        if out != full:  # a tap: all positions as they are now
            self.device.copy(out, full, self.sizes[step.outputs[0].name], stream)
        self._kernels.reconstruct(
            step.inputs[1].dtype,
            tokens,
            index,
            out,
            self.batch,
            kept,
            self.manifest.prefix,
            self.manifest.tokens,
            self.manifest.embed_dim,
            stream,
        )

    def _labels(self, step: PlanStep, stream: int) -> None:
        [logits], [labels] = step.inputs, step.outputs
        batch, classes, height, width = logits.resolve(self._dims(0, 0))
        scale = labels.resolve(self._dims(0, 0))[1] // height
        places = self.place(logits.name), self.place(labels.name)
        self._kernels.labels(logits.dtype, *places, batch, classes, height, width, scale, stream)

    def _fill_taps(self, number: int, stream: int) -> None:
        """Taps of layers that no token reaches: every position has its final value."""
        for steps in self.segments.after[number:]:
            for step in steps:
                for spec in step.outputs:
                    if spec.name in self.manifest.taps:
                        full = self.place(step.inputs[0].name)
                        self.device.copy(self.place(spec.name), full, self.sizes[spec.name], stream)

    def _scratch_bytes(self) -> int:
        needs = [engine.scratch_bytes for engine in self._engines.values()]
        needs.append(self._kernels.gather_scratch_bytes(self.batch, self.manifest.tokens, self.manifest.embed_dim))
        return max(needs)


def _allocate(device: Device, memory: MemoryPlan, plans: PlanSet) -> int:
    free = device.free_bytes
    if memory.size > free:
        raise DovitError(
            f"the {plans.name} plans need {memory.size / 2**20:,.0f} MiB on {device.name}, of which {free / 2**20:,.0f} MiB "
            "are free: close what else uses it, or build plans for a smaller batch"
        )
    return device.allocate(memory.size)
