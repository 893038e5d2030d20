"""Which virtual functions TensorRT-RTX's own Python package calls, printed as JSON.

Ends its process, for nothing else may use the package afterwards: its objects are made up here, with tables whose functions
write down their number.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tensorrt_rtx as rtx

COUNT = 128
called: list[int] = []
FUNCTION = ctypes.CFUNCTYPE(ctypes.c_void_p, *[ctypes.c_void_p] * 6)  # more arguments than any of them takes


def numbered(number: int) -> object:
    def note(*_: object) -> None:
        called.append(number)

    return FUNCTION(note)


FUNCTIONS = [numbered(number) for number in range(COUNT)]
TABLE = (ctypes.c_void_p * COUNT)(*(ctypes.cast(function, ctypes.c_void_p) for function in FUNCTIONS))  # type: ignore[arg-type]
IMPLEMENTATION = (ctypes.c_void_p * 2)(ctypes.addressof(TABLE))
OBJECT = (ctypes.c_void_p * 2)(ctypes.addressof(TABLE), ctypes.addressof(IMPLEMENTATION))


def made_up(kind: type[Any]) -> Any:
    """An object of the package's that points to OBJECT: pybind11 keeps that address behind Python's own two words."""
    wrapper = kind.__new__(kind)
    ctypes.cast(id(wrapper) + 16, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(OBJECT)
    return wrapper


def main() -> None:
    runtime, engine = made_up(rtx.Runtime), made_up(rtx.ICudaEngine)
    config, context = made_up(rtx.IRuntimeConfig), made_up(rtx.IExecutionContext)
    ours, eager = (
        rtx.ExecutionContextAllocationStrategy.USER_MANAGED,
        rtx.DynamicShapesKernelSpecializationStrategy.EAGER,
    )
    calls: dict[str, Callable[[], object]] = {
        "deserialize_cuda_engine": lambda: runtime.deserialize_cuda_engine(b"plan"),
        "create_execution_context": lambda: engine.create_execution_context(ours),
        "device_memory_size": lambda: engine.device_memory_size_v2,
        "create_execution_context_with_config": lambda: engine.create_execution_context(config),
        "create_runtime_config": lambda: engine.create_runtime_config(),
        "set_allocation_strategy": lambda: config.set_execution_context_allocation_strategy(ours),
        "set_specialization_strategy": lambda: setattr(config, "dynamic_shapes_kernel_specialization_strategy", eager),
        "set_optimization_profile": lambda: context.set_optimization_profile_async(1, 0),
        "set_input_shape": lambda: context.set_input_shape("x", (1, 2)),
        "set_tensor_address": lambda: context.set_tensor_address("x", 256),
        "enqueue": lambda: context.execute_async_v3(0),
        "set_device_memory": lambda: context.set_device_memory(256, 256),
    }
    found = {}
    for name, call in calls.items():
        called.clear()
        with suppress(RuntimeError):  # the answer, nothing, is an error to it
            call()
        found[name] = called[-1]
    found |= {"user_managed": int(ours), "eager": int(eager)}
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
