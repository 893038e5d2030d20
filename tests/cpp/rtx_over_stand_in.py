"""Has TensorRT-RTX's own Python package drive the stand-in, which is compiled with our declarations of its interface: prints
the answers as JSON.

Ends its process with os._exit: the Python objects wrap the stand-in's, and their destructors must not run.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import tensorrt_rtx as rtx
from gpu_process import Driver

LIBRARY, DRIVER, PLAN = sys.argv[1:]


class Logger(rtx.ILogger):  # type: ignore[misc]  # a class of a package without types
    def __init__(self) -> None:
        rtx.ILogger.__init__(self)
        self.messages: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        assert severity == rtx.ILogger.Severity.ERROR
        self.messages.append(message)


def address_in(wrapper: object) -> Any:
    """Where pybind11 keeps the address of the wrapped object: after the two words of Python's object header."""
    return ctypes.cast(id(wrapper) + 16, ctypes.POINTER(ctypes.c_void_p))


def main() -> None:
    driver, library = ctypes.CDLL(DRIVER), ctypes.CDLL(LIBRARY)
    cuda = Driver(driver)
    context, stream = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.cuInit(0)
    cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    cuda.cuCtxPushCurrent(context)
    cuda.cuStreamCreate(ctypes.byref(stream), 1)
    on = stream.value
    library.createInferRuntime_INTERNAL.restype = ctypes.c_void_p
    logger = Logger()
    runtime = rtx.Runtime.__new__(rtx.Runtime)
    address_in(runtime)[0] = library.createInferRuntime_INTERNAL(ctypes.c_void_p(address_in(logger)[0]), 10701)
    with open(PLAN, "rb") as file:
        plan = file.read()
    found: dict[str, object] = {"header_size": runtime.engine_header_size}
    found["valid"] = [int(part) for part in runtime.get_engine_validity(plan)]
    driver.stand_in_fail(b"getEngineValidity", 1)
    found["invalid"] = [int(part) for part in runtime.get_engine_validity(plan)]
    engine = runtime.deserialize_cuda_engine(plan)
    found["device_memory"] = engine.device_memory_size_v2
    strategy = rtx.ExecutionContextAllocationStrategy.USER_MANAGED
    found["without_settings"] = engine.create_execution_context(strategy) is not None
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(strategy)
    settings.dynamic_shapes_kernel_specialization_strategy = rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    cache = settings.create_runtime_cache()
    found["wrong_cache"] = cache.deserialize(b"another version's")
    found["cache_taken"] = settings.set_runtime_cache(cache)
    running = engine.create_execution_context(settings)
    found["capturable"] = running.is_stream_capturable(on)
    driver.stand_in_fail(b"isStreamCapturable", 1)
    found["not_capturable"] = running.is_stream_capturable(on)
    with suppress(RuntimeError):  # there is none: the logged messages are compared at the end
        running.set_optimization_profile_async(7, on)
    found["profile"] = running.set_optimization_profile_async(0, on)
    found["shapes"] = [running.set_input_shape("tokens", shape) for shape in ((1, 6, 5), (1, 6, 4))]
    tokens, doubled, scratch = (cuda.array((1, bytes)).view(np.float32) for bytes in (96, 96, 4096))
    tokens[:] = np.arange(24)
    found["addresses"] = [
        running.set_tensor_address(name, place.ctypes.data)
        for name, place in (("tokens", tokens), ("doubled", doubled), ("other", tokens))
    ]
    running.set_device_memory(scratch.ctypes.data, scratch.nbytes)
    found["enqueued"] = running.execute_async_v3(on)
    cuda.cuStreamSynchronize(stream)
    found["doubled"] = doubled.ravel().tolist()
    found["compiled"] = driver.stand_in_calls(b"compile")
    found["cache"] = bytes(cache.serialize()).decode()
    found["same_cache"] = settings.create_runtime_cache().deserialize(cache.serialize())
    found["messages"] = logger.messages
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
