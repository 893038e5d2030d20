"""Where the time of a pass goes on the GPU: every operation by itself, and the whole as it is launched."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dovit.runtime.bundle.program import Copy
from dovit.runtime.gpu.costs import Costs
from dovit.runtime.gpu.device import stream_address
from dovit.runtime.gpu.mode import Mode
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.stepped_modes import ExactMode
from dovit.runtime.gpu.stopwatch import Stopwatch, TimedTransfers, named

WARM_UP = 2
HEAD_START_BYTES, HEAD_STARTS = 128 << 20, 16
COPIES = 5


@dataclass(frozen=True)
class OperationTime:
    """A plan, a kernel or a copy: its median time, the tokens of an image it runs on, and what it has to move."""

    name: str
    step: str | None  # of the manifest; None for the copies to the device and back, and for resizing
    kind: str
    tokens: int
    us: float
    bytes: int

    @property
    def gb_per_s(self) -> float:
        """Bytes over time."""
        return self.bytes / self.us / 1e3 if self.us else 0.0


@dataclass(frozen=True)
class StepTime:
    """All operations of a step of the manifest."""

    name: str
    us: float
    bytes: int
    flops: int

    @property
    def tflop_per_s(self) -> float:
        """Arithmetic over time."""
        return self.flops / self.us / 1e6 if self.us else 0.0


@dataclass(frozen=True)
class Profile:
    """One image, or batch, at one ξ. `launch_us`: the pass as it is captured, from the first copy to the last, where the
    schedule is the captured one. `copy_gb_per_s`: what this GPU's memory reads and writes in a copy within it, larger than
    its caches, measured along with the operations: the peak that these are held against. `device_bytes`: what the pass holds
    on the GPU, weights not counted; `scratch_bytes` of them are the one region that all plans and kernels work in."""

    mode: str
    schedule: str
    rounds: int
    batch: int
    kept: tuple[int, ...]
    operations: tuple[OperationTime, ...]
    steps: tuple[StepTime, ...]
    launch_us: float | None
    copy_gb_per_s: float
    device_bytes: int
    scratch_bytes: int

    def of_a_copy(self, operation: OperationTime) -> float:
        """The share of that rate which an operation reaches with what it has to move."""
        return operation.gb_per_s / self.copy_gb_per_s if self.copy_gb_per_s else 0.0

    @property
    def sum_us(self) -> float:
        """All operations."""
        return sum(operation.us for operation in self.operations)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "operations": [
                asdict(o) | {"gb_per_s": o.gb_per_s, "of_a_copy": self.of_a_copy(o)} for o in self.operations
            ],
            "steps": [asdict(s) | {"tflop_per_s": s.tflop_per_s} for s in self.steps],
            "sum_us": self.sum_us,
        }


class Profiler:
    """Times a program that is captured already. Operations are queued one by one, as the exact mode queues them."""

    def __init__(self, program: LoadedProgram, stopwatch: Stopwatch) -> None:
        self._program, self._stopwatch = program, stopwatch
        self._transfers = TimedTransfers(program, stopwatch)
        self._stepped = ExactMode(program, self._transfers)
        self._stepped.before_segment = self._head_start
        self._idle_bytes = HEAD_START_BYTES
        self._idle = program.device.allocate(self._idle_bytes)
        self._copying = program.device.create_stream()

    def measure(
        self, captured: Mode, images: np.ndarray, thresholds: Sequence[float], rounds: int, *, exact: bool
    ) -> Profile:
        """Medians over `rounds`; in each, one pass of single operations, and one as captured."""
        program, watch = self._program, self._stopwatch
        self._stepped.bucketed = not exact
        names: list[str] = []
        kept: tuple[int, ...] = ()
        times: list[list[float]] = []
        launches: list[float] = []
        for number in range(WARM_UP + max(rounds, 1)):
            with watch.running() as marks:
                self._stepped.launch(images, thresholds)
                result = self._stepped.wait()
            names = [mark.name for mark in marks]
            kept = tuple(decision.keep.shape[1] for decision in result.decisions)
            if number >= WARM_UP:
                times.append([watch.milliseconds(mark) * 1e3 for mark in marks])
            if not exact:
                launches.append(self._launch(captured, images, thresholds))
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        costs = Costs(program.manifest, program.batch, kept)
        operations = self._operations(names, medians, costs)
        return Profile(
            captured.name,
            "exact" if exact else "bucketed",
            rounds,
            program.batch,
            kept,
            operations,
            _steps(operations, costs),
            statistics.median(launches[WARM_UP:]) if launches else None,
            self._copy_rate(),
            captured.device_bytes,
            program.scratch_bytes,
        )

    def _launch(self, captured: Mode, images: np.ndarray, thresholds: Sequence[float]) -> float:
        captured.write(images, thresholds)
        with self._stopwatch.running() as marks, self._stopwatch.around("launch", stream_address(captured.stream)):
            captured.queue()
        captured.stream.sync()
        return self._stopwatch.milliseconds(marks[0]) * 1e3

    def _copy_rate(self) -> float:
        """Of one half of the idle memory to the other, in GB/s, both directions counted."""
        device, watch, half = self._program.device, self._stopwatch, self._idle_bytes // 2
        stream = self._copying
        with watch.running() as marks:
            for _ in range(WARM_UP + COPIES):
                with watch.around("copy within", stream_address(stream)):
                    device.copy(self._idle + half, self._idle, half, stream_address(stream))
        stream.sync()
        us = statistics.median(watch.milliseconds(mark) * 1e3 for mark in marks[WARM_UP:])
        return 2 * half / us / 1e3 if us else 0.0

    def _operations(self, names: Sequence[str], medians: Sequence[float], costs: Costs) -> tuple[OperationTime, ...]:
        """Operations are queued in their order, some of them left out: each mark is the next one of its plan or kernel. A copy
        comes before the kernel of its name, and is not timed by itself."""
        program = self._program
        steps = {step.name: step for step in program.plans.steps}
        queued = iter([(n, o) for n, o in program.program.operations if not isinstance(o, Copy)])
        outside = self._outside_bytes()
        found = []
        for name, us in zip(names, medians, strict=True):
            if name in outside:
                kind = name.partition(" ")[0]
                found.append(OperationTime(name, None, kind, program.program.tokens, us, outside[name]))
                continue
            number, operation = next((n, o) for n, o in queued if name == (o.name if o.kind == "plan" else o.kernel))
            step = steps[operation.name]
            tokens = program.program.tokens if number == program.last_segment else costs.tokens(number)
            found.append(OperationTime(step.name, step.step, step.kind, tokens, us, costs.moved(step, number)))
        return tuple(found)

    def _outside_bytes(self) -> dict[str, int]:
        """Of what is no step's."""
        program = self._program
        moved = {"copy in": self._transfers.input_bytes, "copy out": program.program.result_bytes}
        if self._transfers.resizes:
            own = program.resized_labels.bytes
            moved |= {"resize": program.resizer.moved_bytes, "resized_labels": program.bytes("logits") + own}
            moved["copy labels out"] = own
        return moved

    def _head_start(self, stream: int) -> None:
        """Keep the GPU busy while the host queues a segment. It would wait for the host between short kernels otherwise, and
        their events would tell of that."""
        with named("head start"):
            for _ in range(HEAD_STARTS):
                self._program.device.clear(self._idle, self._idle_bytes, stream)


def _steps(operations: Sequence[OperationTime], costs: Costs) -> tuple[StepTime, ...]:
    names = dict.fromkeys(o.step for o in operations if o.step is not None)
    totals = []
    for name in names:
        own = [o for o in operations if o.step == name]
        totals.append(StepTime(name, sum(o.us for o in own), sum(o.bytes for o in own), costs.flops(name)))
    return tuple(totals)
