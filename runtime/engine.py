"""The interface of an engine, which runs one step, and its implementation with ONNX Runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError

# what ONNX Runtime calls the manifest's types
ONNX_TYPES = {
    "uint8": "uint8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float",
}


class Engine(Protocol):
    """One step, ready to run. Thread-safe."""

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """Run the step on `inputs`, writing into the arrays in `outputs`; for None an array is allocated. Returns all outputs."""
        ...


_process_lock = threading.Lock()
_process_is_ready = False


def prepare_process() -> None:
    """One memory arena for all our sessions of the process: the steps of a chain run one after the other, and with arenas of
    their own each would hold the memory that only one of them needs at a time. Sessions of other libraries keep theirs."""
    import onnxruntime as ort

    global _process_is_ready
    with _process_lock:
        if not _process_is_ready:
            memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            # grow by what is asked for (1), not to the next power of two
            ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
            _process_is_ready = True


class _Encoded(os.PathLike[bytes]):
    """A path as the system has it: a str reaches ONNX Runtime as UTF-8, which not every name is, and in another locale none is
    that has letters beyond ASCII."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self._path)


class OnnxRuntimeEngine:
    """A step's ONNX file under ONNX Runtime's CPU provider, fed by IO binding."""

    def __init__(
        self,
        name: str,
        model: Path | bytes,
        *,
        weights: Path | None = None,
        threads: int | None = None,
        prepack: bool = True,
        fuse_quantized: bool = True,
    ) -> None:
        """`model`: a file, or an ONNX model's bytes whose external weights lie in the folder `weights`.

        Without `prepack` the weights are used as they lie in the file, which is mapped: slower, but no copy of them. Without
        `fuse_quantized` quantized products are computed in float32 on the rounded values, as fp8 ones have to be, and those of
        lowered steps, which ONNX Runtime does not fuse.
        """
        import onnxruntime as ort

        prepare_process()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Every step has its threads, of which all but the running step's sleep: active waiting (ONNX Runtime's default) takes
        # the cores from the step that runs, and for 20 ms after a call from the program's own work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        # weights lie outside the arena, which is never given back: closing a session frees them
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.log_severity_level = 3  # errors only; they reach the user as one sentence
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if fuse_quantized:
            # on an x86 CPU without VNNI: sums of int8 products in 32 bits, not in 16, which saturate
            options.add_session_config_entry("session.x64quantprecision", "1")
        else:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if weights:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", os.fsencode(weights)
            )
        source = model if isinstance(model, bytes) else _Encoded(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own types, which share no base but Exception
            raise DovitError(f"ONNX Runtime cannot load step {name}: {_line(error)}") from None
        self._name = name
        self._inputs = {tensor.name: tensor.type for tensor in self._session.get_inputs()}
        self._outputs = {tensor.name: tensor.type for tensor in self._session.get_outputs()}

    def check(self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
        """Raises DovitError where the model has no such inputs and outputs, has them of another type, or needs more inputs."""
        wanted = {spec.name: spec for spec in inputs}
        for kind, specs, there in (
            ("input", wanted.values(), self._inputs),
            ("output", outputs, self._outputs),
        ):
            for spec in specs:
                expected = f"tensor({ONNX_TYPES[spec.dtype]})"
                if spec.name not in there:
                    raise DovitError(
                        f"step {self._name}: its ONNX file has no {kind} {spec.name}; export the bundle again"
                    )
                if there[spec.name] != expected:
                    raise DovitError(
                        f"step {self._name}: {kind} {spec.name} is a {there[spec.name]} in its ONNX file, the manifest says "
                        f"{expected}; export the bundle again"
                    )
                if spec.dtype == "bfloat16":
                    raise DovitError(
                        f"step {self._name}: {kind} {spec.name} is bfloat16, which ONNX Runtime cannot pass on a CPU; "
                        "export the bundle again"
                    )
        if missing := sorted(set(self._inputs) - set(wanted)):
            raise DovitError(f"step {self._name}: its ONNX file needs {missing[0]} too; export the bundle again")

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """See Engine."""
        binding = self._session.io_binding()
        try:
            for name, array in inputs.items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, _pointer(array))
            for name, place in outputs.items():
                if place is None:
                    binding.bind_output(name, "cpu")
                else:
                    binding.bind_output(name, "cpu", 0, place.dtype, place.shape, _pointer(place))
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise DovitError(f"ONNX Runtime failed in step {self._name}: {_line(error)}") from None
        values = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {name: values[name].numpy() if place is None else place for name, place in outputs.items()}


def _pointer(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _line(error: Exception) -> Any:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
