"""ONNX Runtime in place of TensorRT, on the fake GPU's memory."""

from __future__ import annotations

import numpy as np

from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.engine import Engine
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import PlanCall
from fake_gpu.device import FakeDevice, array
from fake_gpu.graphs import KernelNode


class FakeEngine:
    """ONNX Runtime on the memory at given addresses."""

    scratch_bytes = 64

    def __init__(self, device: FakeDevice, step: PlanStep, engine: Engine, node: type[KernelNode] = KernelNode) -> None:
        self.device, self.step, self.engine, self.node = device, step, engine, node
        self.refuses = False
        self.invalidates = False  # any capture that it is part of
        self.reason: str | None = None  # that TensorRT would give against capturing it

    def enqueue(self, call: PlanCall, stream: int) -> None:
        if self.refuses:
            raise DovitError(f"TensorRT could not enqueue {self.step.name}")
        if self.invalidates and stream in self.device.building:
            self.device.building[stream].invalid = True
        inputs, outputs = (
            {spec.name: array(call.addresses[spec.name], call.shapes[spec.name], spec.dtype) for spec in specs}
            for specs in (self.step.inputs, self.step.outputs)
        )

        def work() -> None:
            array(call.scratch, (64,), np.uint8)[:] = 0xEE
            # a plan may write an output before it has read all inputs
            made = self.engine.run({name: value.copy() for name, value in inputs.items()}, dict.fromkeys(outputs))
            for name, place in outputs.items():
                place[...] = made[name]

        self.device.submit(stream, self.node(work))

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        return self.reason
