"""Runs one step under OpenVINO: its body in the session's precision, its tail in float32."""

from __future__ import annotations

import math
import os
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
        self._name, self._files = name, files
        self._batched: str | None = None  # an input whose first size is the batch's
        self._takes_batches: bool | None = None  # known when there is one
        self.models: list[Any] = []  # openvino.CompiledModel: body, tail, labels
        for number, file in enumerate(files):
            tail = number > 0  # confidences, logits and labels
            options = options_for(threads, "fp32" if tail else precision)
            if cache is not None:
                options["CACHE_DIR"] = os.fsencode(cache)  # a str would have to be UTF-8
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
        self._batched = next((spec.name for spec in given if spec.shape[:1] == ("batch",)), None)
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

        if self._batched is not None and len(inputs[self._batched]) > 1:
            self._check_batches()
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

    def _check_batches(self) -> None:
        """Raises DovitError where OpenVINO gives correct results with the files for single images only, for the reason in
        export/graph/openvino_rewrites.py; such are those of models that merge by cell in bundles that were exported earlier."""
        if self._takes_batches is None:
            try:
                self._takes_batches = not any(_adds_a_vector_to_a_sum(file) for file in self._files)
            except Exception as error:  # the files may be gone since
                raise DovitError(f"step {self._name}: its files cannot be read again: {reason_of(error)}") from None
        if not self._takes_batches:
            raise DovitError(
                f"step {self._name}: OpenVINO gives correct results for one image at a time only with this file of an older "
                "dovit: export the bundle again, or run images one by one"
            )

    def _needed(self, outputs: Iterable[str]) -> int:
        """How many of the models make `outputs`: the last one, which makes labels of logits, may be left out."""
        wanted = set(outputs)
        return max((n for n, makes in enumerate(self._outputs, 1) if any(p.names & wanted for p in makes)), default=0)


def _adds_a_vector_to_a_sum(file: Path) -> bool:
    """Whether, in an ONNX file, an operation with a constant of several values follows a reduction that drops its axes."""
    for node in core().read_model(str(file)).get_ops():
        if not node.get_type_name().startswith("Reduce") or node.get_attributes().get("keep_dims"):
            continue
        users = [place.get_node() for place in node.output(0).get_target_inputs()]
        values = [user.input_value(number) for user in users for number in range(user.get_input_size())]
        if any(v.get_node().get_type_name() == "Constant" and math.prod(v.get_shape()) > 1 for v in values):
            return True
    return False


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
