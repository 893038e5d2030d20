"""What runs one step: the interface, and ONNX Runtime behind it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dovit.runtime.errors import DovitError


class Engine(Protocol):
    """One step, ready to run. Calls from several threads at a time are allowed."""

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """Read `inputs`, write into `outputs`; an output given as None gets memory of its own. Returns all outputs."""
        ...


_pool_lock = threading.Lock()
_pool_threads: int | None = None


def _share_thread_pool(threads: int | None) -> None:
    """One pool for all sessions of the process: ONNX Runtime's default is one each, and their idle threads spin."""
    import onnxruntime as ort

    global _pool_threads
    with _pool_lock:
        if _pool_threads is None:
            _pool_threads = threads or len(os.sched_getaffinity(0))
            ort.set_global_thread_pool_sizes(_pool_threads, 1)


class OnnxRuntimeEngine:
    """A step's ONNX file under ONNX Runtime's CPU provider, fed by IO binding."""

    def __init__(
        self, name: str, model: Path | bytes, *, weights: Path | None = None, threads: int | None = None
    ) -> None:
        """`model`: a file, or an ONNX model's bytes whose external weights lie in the folder `weights`."""
        import onnxruntime as ort

        _share_thread_pool(threads)
        options = ort.SessionOptions()
        options.use_per_session_threads = False
        options.log_severity_level = 3  # errors only; they reach the user as one sentence
        if weights:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own types, which share no base but Exception
            raise DovitError(f"ONNX Runtime cannot load step {name}: {_line(error)}") from None
        self._name = name

    def run(self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """See Engine."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, _pointer(array))
        for name, place in outputs.items():
            if place is None:
                binding.bind_output(name, "cpu")
            else:
                binding.bind_output(name, "cpu", 0, place.dtype, place.shape, _pointer(place))
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise DovitError(f"ONNX Runtime failed in step {self._name}: {_line(error)}") from None
        values = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {name: values[name].numpy() if place is None else place for name, place in outputs.items()}


def _pointer(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _line(error: Exception) -> Any:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
