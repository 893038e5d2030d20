"""A TensorRT plan on the device: one deserialized engine, and a context for every set of sizes that a program keeps.

A context's settings and memory of its own become part of what is captured with it, so none serves two sizes, nor two programs,
which may run side by side. Sizes that do not come again share one context of their program. Scratch memory is the program's,
for all its contexts, which take turns.

Chains of a process share what TensorRT has deserialized, the weights on the GPU with it, and compiled.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dovit.runtime.bundle.plans import Flavour, PlanStep
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import PlanCall
from dovit.runtime.gpu.runtime_cache import RuntimeCache, cache_file
from dovit.runtime.machine import Gpu, find_gpu
from dovit.runtime.plans import MODULES, TITLES

if TYPE_CHECKING:
    import tensorrt as trt


LOG = logging.getLogger("dovit.runtime.gpu")


@cache
def shared_tensorrt(flavour: Flavour, device: int = 0) -> TensorRt:
    """TensorRT or TensorRT-RTX for all chains of this process on GPU number `device`, which is current."""
    version, gpu = str(importlib.import_module(MODULES[flavour]).__version__), find_gpu(device)
    file = cache_file(flavour, version, gpu.name, gpu.compute_capability) if isinstance(gpu, Gpu) else None
    return TensorRt(flavour, RuntimeCache(file))


class TensorRt:
    """TensorRT or TensorRT-RTX in this process: it deserializes plans and keeps the last error message."""

    def __init__(self, flavour: Flavour, runtime_cache: RuntimeCache | None = None) -> None:
        self.title = TITLES[flavour]
        self.runtime_cache = runtime_cache or RuntimeCache(None)
        self._engines: WeakValueDictionary[str, trt.ICudaEngine] = WeakValueDictionary()
        self.module: Any = importlib.import_module(MODULES[flavour])
        self.messages: list[str] = []
        self._logger = _logger(self.module, self.messages)
        self.runtime: trt.Runtime = self.module.Runtime(self._logger)

    def engine(self, step: PlanStep, file: Path, digest: str) -> TensorRtEngine:
        """The plan of `step`. The caller has checked that `digest` is the file's SHA-256: a plan is code. Plans that another
        chain uses are not deserialized again. Raises DovitError."""
        engine = self._engines.get(digest)
        if engine is None:
            engine = self._deserialize(file)
            self._engines[digest] = engine
        return TensorRtEngine(self, step, engine)

    def _deserialize(self, file: Path) -> trt.ICudaEngine:
        plan = file.read_bytes()
        invalid = self._why_invalid(plan)
        engine = None if invalid else self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DovitError(f"{file}: {self.title} does not take this plan: {invalid or self.reason}")
        return engine

    def _why_invalid(self, plan: bytes) -> str | None:
        """What TensorRT-RTX finds wrong with a plan on this machine, by its header; None: nothing, or it cannot be asked."""
        ask = getattr(self.runtime, "get_engine_validity", None)
        if ask is None:
            return None
        validity, diagnostics = ask(plan)
        found = [
            name
            for name, bit in self.module.EngineInvalidityDiagnostics.__members__.items()
            if int(diagnostics) & int(bit)
        ]
        if validity == self.module.EngineValidity.SUBOPTIMAL:
            LOG.info("%s says that a plan is not the best for this GPU: build it here for one that is", self.title)
        # an INVALID without a diagnostic is left to the deserialization, which says more
        return ", ".join(found) if found and validity == self.module.EngineValidity.INVALID else None

    @property
    def reason(self) -> str:
        """The last error that TensorRT logged."""
        return self.messages[-1][:300] if self.messages else "it does not say why"


class _Context:
    """An execution context, and its settings, which have to live longer."""

    def __init__(self, context: trt.IExecutionContext, settings: object) -> None:
        self.context, self._settings = context, settings

    def __del__(self) -> None:
        del self.context


class TensorRtEngine:
    """See DeviceEngine."""

    def __init__(self, owner: TensorRt, step: PlanStep, engine: trt.ICudaEngine) -> None:
        self._owner, self._step, self._engine = owner, step, engine
        # by the program's scratch memory and the tokens; None for the one of all sizes that do not come again
        self._contexts: dict[tuple[int, int | None], _Context] = {}

    @property
    def scratch_bytes(self) -> int:
        """At the largest shapes of any profile."""
        return max(int(self._engine.device_memory_size_v2), 1)

    def enqueue(self, call: PlanCall, stream: int) -> None:
        """Queue the plan. Its context is made when its sizes are first seen, which cannot happen during a capture."""
        key = _key(call)
        fresh = key not in self._contexts
        if fresh:
            self._contexts[key] = self._new_context(recurring=call.recurring)
        context = self._contexts[key].context
        if fresh or not call.recurring:
            self._set_sizes(context, call, stream, again=not fresh)
        context.set_device_memory(call.scratch, self.scratch_bytes)
        for name, place in call.addresses.items():
            if not context.set_tensor_address(name, place):
                raise DovitError(
                    f"{self._owner.title} refuses the tensor {name} of {self._step.name}: {self._owner.reason}"
                )
        if not context.execute_async_v3(stream):
            raise DovitError(f"{self._owner.title} could not enqueue {self._step.name}: {self._owner.reason}")

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        """See DeviceEngine. Only TensorRT-RTX can be asked."""
        ask = getattr(self._contexts[_key(call)].context, "is_stream_capturable", None)
        if ask is None or ask(stream):
            return None
        return f"{self._owner.title} says so (IExecutionContext.is_stream_capturable)"

    def _new_context(self, *, recurring: bool) -> _Context:
        settings = self._settings(recurring=recurring)
        context = self._engine.create_execution_context(settings)
        if context is None:
            raise DovitError(f"{self._owner.title} makes no context for {self._step.name}: {self._owner.reason}")
        return _Context(context, settings)

    def _set_sizes(self, context: trt.IExecutionContext, call: PlanCall, stream: int, *, again: bool) -> None:
        profile = call.profile
        if (profile or again) and not context.set_optimization_profile_async(profile, stream):
            raise DovitError(
                f"{self._owner.title} refuses profile {profile} of {self._step.name}: {self._owner.reason}"
            )
        for name in (spec.name for spec in self._step.inputs):
            shape = call.shapes[name]
            if not context.set_input_shape(name, shape):
                raise DovitError(
                    f"{self._owner.title} refuses shape {shape} for {name} of {self._step.name}: {self._owner.reason}"
                )

    def _settings(self, *, recurring: bool) -> Any:
        """Scratch memory is ours. TensorRT-RTX compiles kernels for a shape when it first sees it, by default in the background
        while general ones run: those would be captured, and stay. So it is to finish first; for sizes that do not come again
        it compiles none."""
        module = self._owner.module
        ours = module.ExecutionContextAllocationStrategy.USER_MANAGED
        specialise = getattr(module, "DynamicShapesKernelSpecializationStrategy", None)
        if specialise is None:
            return ours
        settings: Any = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(ours)
        settings.dynamic_shapes_kernel_specialization_strategy = specialise.EAGER if recurring else specialise.NONE
        self._owner.runtime_cache.attach(settings)
        return settings


def _key(call: PlanCall) -> tuple[int, int | None]:
    """A program has one scratch memory, and a plan's shapes depend on the tokens alone."""
    return call.scratch, call.tokens if call.recurring else None


def _logger(module: Any, messages: list[str]) -> Any:
    class Logger(module.ILogger):  # type: ignore[misc]  # a class of whichever TensorRT it is
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.Severity.ERROR:
                messages.append(message)

    return Logger()
