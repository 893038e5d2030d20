"""Calls of TensorRT for a plan, and how its errors are handled, with a stand-in for the library, which needs a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dovit.runtime.bundle.plans import Plan, PlanStep
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu import tensorrt_engine
from dovit.runtime.gpu.device import PlanCall
from dovit.runtime.gpu.runtime_cache import RuntimeCache, cache_file
from dovit.runtime.gpu.tensorrt_engine import TensorRt, TensorRtEngine

ADDRESSES = {"gathered1": 100, "tokens2": 200}


def step() -> PlanStep:
    plan = Plan(
        file="p",
        profiles=(),
        parameters=0,
        network_layers=1,
        layers=(),
        attentions=0,
        fused_attentions=0,
        weight_bytes=0,
        activation_bytes=0,
        build_seconds=0.0,
    )
    spec = [TensorSpec(name=name, dtype="float16", shape=(1, "length1", 8)) for name in ADDRESSES]
    return PlanStep(name="block2", step="block2", kind="plan", inputs=(spec[0],), outputs=(spec[1],), plan=plan)


class Context:
    def __init__(self, settings: object) -> None:
        self.settings, self.calls = settings, []  # type: tuple[object, list[tuple[Any, ...]]]
        self.refuses = ""

    def __getattr__(self, name: str) -> Callable[..., bool]:
        def call(*arguments: object) -> bool:
            self.calls.append((name, *arguments))
            return name != self.refuses

        return call


class Cache:
    """A runtime cache that accepts only what it serialized itself."""

    def __init__(self, library: Library) -> None:
        self.library, self.content = library, b""

    def serialize(self) -> bytes:
        return b"kernels of " + b" ".join(sorted(self.library.compiled))

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return content.startswith(b"kernels of ")


class Settings:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.strategy: object = None
        self.dynamic_shapes_kernel_specialization_strategy: object = None
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        self.library.caches.append(Cache(self.library))
        return self.library.caches[-1]

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    device_memory_size_v2 = 77

    def __init__(self, library: Library) -> None:
        self.library = library

    def create_runtime_config(self) -> Settings:
        return Settings(self.library)

    def create_execution_context(self, settings: object) -> Context:
        made = Context(settings)
        made.refuses = self.library.refuses
        self.library.contexts.append(made)
        return made


class Library(ModuleType):
    """TensorRT-RTX, as far as it is called."""

    __version__ = "1.7.1.116"
    EngineValidity = SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2)
    EngineInvalidityDiagnostics = SimpleNamespace(__members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2})
    ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1)})
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="ours")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", NONE="none")

    def __init__(self) -> None:
        super().__init__("library")
        self.contexts: list[Context] = []
        self.caches: list[Cache] = []
        self.compiled: set[bytes] = set()
        self.deserialized = 0
        self.validity = 0, 0
        self.refuses = ""
        self.takes_plans = True

    def Runtime(self, logger: Any) -> SimpleNamespace:
        def deserialize(content: bytes) -> Engine | None:
            logger.log(1, "no such plan")
            self.deserialized += 1
            return Engine(self) if self.takes_plans else None

        return SimpleNamespace(deserialize_cuda_engine=deserialize, get_engine_validity=lambda plan: self.validity)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(tensorrt_engine.importlib, "import_module", lambda name: made)
    return made


def opened(tmp_path: Path) -> TensorRtEngine:
    return plan_of(TensorRt("tensorrt-rtx"), tmp_path)


def plan_of(tensorrt: TensorRt, tmp_path: Path) -> TensorRtEngine:
    (tmp_path / "p.plan").write_bytes(b"plan")
    return tensorrt.engine(step(), tmp_path / "p.plan", "digest")


def enqueue(engine: TensorRtEngine, kept: int, scratch: int = 7) -> None:
    engine.enqueue(call(kept, scratch), 9)


def call(tokens: int, scratch: int = 7, profile: int = 0, *, recurring: bool = True) -> PlanCall:
    shapes = dict.fromkeys(ADDRESSES, (1, tokens + 1, 8))
    return PlanCall(ADDRESSES, shapes, tokens, profile, scratch, recurring)


def test_a_context_for_each_size_and_program(library: Library, tmp_path: Path) -> None:
    engine = opened(tmp_path)
    for kept, scratch in ((5, 7), (6, 7), (5, 7), (5, 8), (6, 8)):
        enqueue(engine, kept, scratch)
    assert len(library.contexts) == 4 and engine.scratch_bytes == 77
    first = library.contexts[0]
    assert first.calls == [
        ("set_input_shape", "gathered1", (1, 6, 8)),
        *[
            ("set_device_memory", 7, 77),
            ("set_tensor_address", "gathered1", 100),
            ("set_tensor_address", "tokens2", 200),
            ("execute_async_v3", 9),
        ]
        * 2,
    ]


def test_sizes_that_do_not_come_again_share_a_context(library: Library, tmp_path: Path) -> None:
    """Exact passes would have one for every count otherwise. A profile is chosen anew, also where it is the first one."""
    engine = opened(tmp_path)
    for kept, profile in ((3, 0), (7, 1), (2, 0)):
        engine.enqueue(call(kept, profile=profile, recurring=False), 9)
    [context] = library.contexts
    assert context.settings.dynamic_shapes_kernel_specialization_strategy == "none"  # type: ignore[attr-defined]
    chosen = [call for call in context.calls if call[0] in ("set_optimization_profile_async", "set_input_shape")]
    assert chosen == [
        ("set_input_shape", "gathered1", (1, 4, 8)),
        ("set_optimization_profile_async", 1, 9),
        ("set_input_shape", "gathered1", (1, 8, 8)),
        ("set_optimization_profile_async", 0, 9),
        ("set_input_shape", "gathered1", (1, 3, 8)),
    ]


def test_kernels_are_compiled_before_they_are_captured(library: Library, tmp_path: Path) -> None:
    enqueue(opened(tmp_path), 5)
    settings = library.contexts[0].settings
    assert isinstance(settings, Settings)
    assert (settings.strategy, settings.dynamic_shapes_kernel_specialization_strategy) == ("ours", "eager")


def test_full_tensorrt_has_no_such_setting(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Library, "DynamicShapesKernelSpecializationStrategy")
    enqueue(opened(tmp_path), 5)
    assert library.contexts[0].settings == "ours"


def test_the_profile_of_the_program_is_chosen(library: Library, tmp_path: Path) -> None:
    """A context begins with profile 0, and setting one anew waits for the device."""
    for profile in (0, 1, 2):
        opened(tmp_path).enqueue(call(5, profile=profile), 9)
        chosen = [one for one in library.contexts[-1].calls if one[0] == "set_optimization_profile_async"]
        assert chosen == ([("set_optimization_profile_async", profile, 9)] if profile else [])


@pytest.mark.parametrize(
    ("refuses", "sentence"),
    [
        ("set_input_shape", r"TensorRT-RTX refuses shape \(1, 6, 8\) for gathered1 of block2: no such plan"),
        ("set_tensor_address", "TensorRT-RTX refuses the tensor gathered1 of block2: no such plan"),
        ("execute_async_v3", "TensorRT-RTX could not enqueue block2: no such plan"),
    ],
)
def test_every_refusal_is_a_sentence(library: Library, tmp_path: Path, refuses: str, sentence: str) -> None:
    library.refuses = refuses
    with pytest.raises(DovitError, match=f"^{sentence}$"):
        enqueue(opened(tmp_path), 5)


def test_a_plan_that_it_does_not_take(library: Library, tmp_path: Path) -> None:
    library.takes_plans = False
    with pytest.raises(DovitError, match=r"p\.plan: TensorRT-RTX does not take this plan: no such plan"):
        opened(tmp_path)


def test_a_missing_header_is_explained(library: Library, tmp_path: Path) -> None:
    """Before the plan is read whole; an invalid one without a reason is left to the deserialization."""
    library.validity = 2, 3
    with pytest.raises(
        DovitError, match=r"p\.plan: TensorRT-RTX does not take this plan: VERSION_MISMATCH, UNSUPPORTED_CC"
    ):
        opened(tmp_path)
    assert not library.deserialized
    library.validity = 2, 0
    opened(tmp_path)
    assert library.deserialized == 1


def test_whether_a_context_can_be_captured(library: Library, tmp_path: Path) -> None:
    engine = opened(tmp_path)
    enqueue(engine, 5)
    assert engine.why_not_capturable(call(5), 9) is None
    assert library.contexts[0].calls[-1] == ("is_stream_capturable", 9)
    library.contexts[0].refuses = "is_stream_capturable"
    assert engine.why_not_capturable(call(5), 9) == "TensorRT-RTX says so (IExecutionContext.is_stream_capturable)"


def test_chains_share_what_was_deserialized(library: Library, tmp_path: Path) -> None:
    """As long as one of them uses it; contexts are each one's own."""
    tensorrt = TensorRt("tensorrt-rtx")
    engines = [plan_of(tensorrt, tmp_path) for _ in range(2)]
    for engine in engines:
        enqueue(engine, 5)
    assert library.deserialized == 1 and len(library.contexts) == 2
    engines.clear()
    library.contexts.clear()
    del engine
    gc.collect()
    plan_of(tensorrt, tmp_path)
    assert library.deserialized == 2


def test_one_cache_of_compiled_kernels_for_all_contexts_and_the_next_process(library: Library, tmp_path: Path) -> None:
    file = cache_file("tensorrt-rtx", "1.7.1.116", "NVIDIA RTX 4090 / D", "8.9")
    assert file is not None and file.name == "tensorrt-rtx-1.7.1.116-NVIDIA_RTX_4090_D-8.9.cache"
    kept = tmp_path / "made" / file.name
    first = RuntimeCache(kept)
    engine = plan_of(TensorRt("tensorrt-rtx", first), tmp_path)
    for kept_tokens in (5, 6):
        enqueue(engine, kept_tokens)
    caches = {context.settings.cache for context in library.contexts}  # type: ignore[attr-defined]
    assert caches == {library.caches[0]} and len(library.caches) == 1
    first.save()
    assert not library.caches[0].content and kept.read_bytes() == b"kernels of "

    second = RuntimeCache(kept)
    enqueue(plan_of(TensorRt("tensorrt-rtx", second), tmp_path), 5)
    assert library.caches[1].content == b"kernels of "
    kept.unlink()
    second.save()
    assert not kept.exists(), "nothing new was compiled"
    library.compiled.add(b"more")
    second.save()
    assert kept.read_bytes() == b"kernels of more"


def test_a_cache_that_cannot_be_used_is_made_anew(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache of another version, or in a folder without write permission: the session runs nevertheless."""
    file = tmp_path / "a.cache"
    file.write_bytes(b"of another version")
    cache = RuntimeCache(file)
    enqueue(plan_of(TensorRt("tensorrt-rtx", cache), tmp_path), 5)
    cache.save()
    assert file.read_bytes() == b"kernels of "
    (tmp_path / "file").write_bytes(b"")
    nowhere = RuntimeCache(tmp_path / "file" / "a.cache")
    enqueue(plan_of(TensorRt("tensorrt-rtx", nowhere), tmp_path), 5)
    with caplog.at_level("WARNING", "dovit"):
        nowhere.save()
    assert "compiled kernels are not kept" in caplog.text
