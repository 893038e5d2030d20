"""Runs one step under OpenVINO: its body in the session's precision, its tail in float32."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError
from dovit.runtime.openvino.device import CpuPrecision, core, options_for, reason_of

# what OpenVINO calls the manifest's types
ELEMENT_TYPES = {
    "uint8": "u8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
}


class OpenVinoEngine:
    """A step's files for OpenVINO on its CPU device. See `dovit.runtime.engine.Engine`."""

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        *,
        threads: int | None,
        precision: CpuPrecision,
        cache: Path | None = None,
    ) -> None:
        """`files`: as `Step.openvino` lists them; `cache`: a folder for what OpenVINO compiles, from which the next process takes
        it. Raises DovitError where a file cannot be compiled."""
        self._name = name
        self.models: list[Any] = []  # openvino.CompiledModel: body, tail, labels
        for number, file in enumerate(files):
            tail = number > 0  # confidences, logits and labels
            options = options_for(threads, "fp32" if tail else precision)
            if cache is not None:
                options["CACHE_DIR"] = str(cache)
            try:
                self.models.append(core().compile_model(str(file), "CPU", options))
            except Exception as error:  # OpenVINO's own types, or RuntimeError
                raise DovitError(f"OpenVINO cannot load step {name}: {reason_of(error)}") from None
        self._inputs = [_ports(model.inputs) for model in self.models]
        self._outputs = [_ports(model.outputs) for model in self.models]
        # each an openvino.InferRequest a model, of which every call takes one
        self.idle: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def check(self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
        """Raises DovitError where the files have no such inputs and outputs, have them of another type, or need more inputs."""
        given = list(inputs)
        for kind, specs, ports in (("input", given, self._inputs), ("output", list(outputs), self._outputs)):
            there = {name: port.element_type for found in ports for port in found for name in port.names}
            for spec in specs:
                expected = ELEMENT_TYPES[spec.dtype]
                if there.get(spec.name) != expected:
                    raise DovitError(
                        f"step {self._name}: {kind} {spec.name} is {there.get(spec.name, 'missing')} in its file for OpenVINO, "
                        f"the manifest says {expected}; export the bundle again"
                    )
        known = {spec.name for spec in given}
        for takes, makes in zip(self._inputs, self._outputs, strict=True):
            if missing := [port for port in takes if not port.names & known]:
                raise DovitError(
                    f"step {self._name}: its file for OpenVINO needs {min(missing[0].names)} too; export the bundle again"
                )
            known |= {name for port in makes for name in port.names}

    def makes_apart(self, output: str) -> bool:
        """Whether the last model makes `output` and nothing else, so that `run` may be called without it. What is made with other
        outputs needs a place in every call: OpenVINO goes on to write where an earlier call said, which may be freed by then."""
        return len(self.models) > 1 and [output in port.names for port in self._outputs[-1]] == [True]

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """See Engine and `makes_apart`."""
        import openvino

        try:
            requests = self.idle.get_nowait()
        except queue.Empty:
            requests = [model.create_infer_request() for model in self.models]
        made: dict[str, np.ndarray] = {}
        try:
            tensors = {name: openvino.Tensor(_writable(array), shared_memory=True) for name, array in inputs.items()}
            for request, takes, makes in zip(
                requests[: self._needed(outputs)], self._inputs, self._outputs, strict=False
            ):
                # ports by number: OpenVINO looks a name up among all ports, 14 µs each time
                for number, port in enumerate(takes):
                    name = next(name for name in port.names if name in tensors)
                    request.set_input_tensor(number, tensors[name])
                for number, port in enumerate(makes):
                    for name in port.names & outputs.keys():
                        place = outputs[name]
                        if place is not None:
                            tensors[name] = openvino.Tensor(place, shared_memory=True)
                            request.set_output_tensor(number, tensors[name])
                            made[name] = place
                request.infer(share_outputs=True)  # else each output is also copied to a new array
                for number, port in enumerate(makes):
                    if not port.names <= tensors.keys():
                        tensors |= dict.fromkeys(port.names, request.get_output_tensor(number))
            made |= {name: np.array(tensors[name].data) for name, place in outputs.items() if place is None}
        except Exception as error:
            raise DovitError(f"OpenVINO failed in step {self._name}: {reason_of(error)}") from None
        self.idle.put(requests)
        return made

    def _needed(self, outputs: Iterable[str]) -> int:
        """How many of the models make `outputs`: the last one, which makes labels of logits, may be left out."""
        wanted = set(outputs)
        return max((n for n, makes in enumerate(self._outputs, 1) if any(p.names & wanted for p in makes)), default=0)


def _writable(array: np.ndarray) -> np.ndarray:
    """A copy of what is read-only, as Pillow's images are: OpenVINO shares no such memory, though it only reads inputs."""
    return array if array.flags.writeable else array.copy()


@dataclass(frozen=True)
class _Port:
    """An input or output of a compiled model. It has several names where OpenVINO found nodes that do nothing."""

    names: frozenset[str]
    element_type: str


def _ports(ports: Iterable[Any]) -> list[_Port]:
    return [_Port(frozenset(port.names), port.element_type.get_type_name()) for port in ports]
