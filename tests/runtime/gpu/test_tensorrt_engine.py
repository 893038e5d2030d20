"""What is asked of TensorRT for a plan, and what becomes of its refusals: a stand-in for the library, which cannot run here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dovit.runtime.bundle.plans import Plan, PlanStep, Profile
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu import tensorrt_engine
from dovit.runtime.gpu.tensorrt_engine import TensorRt, TensorRtEngine

PLACES = {"gathered1": 100, "tokens2": 200}


def step(*profiles: Profile) -> PlanStep:
    plan = Plan(
        file="p", profiles=profiles, parameters=0, network_layers=1, layers=(), attentions=0, fused_attentions=0,
        weight_bytes=0, activation_bytes=0, build_seconds=0.0,
    )  # fmt: skip
    spec = [TensorSpec(name=name, dtype="float16", shape=(1, "length1", 8)) for name in PLACES]
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


class Library(ModuleType):
    """TensorRT-RTX, as far as it is called."""

    ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1)})
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="ours")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def __init__(self) -> None:
        super().__init__("library")
        self.contexts: list[Context] = []
        self.refuses = ""
        self.takes_plans = True

    def Runtime(self, logger: Any) -> SimpleNamespace:
        def deserialize(content: bytes) -> SimpleNamespace | None:
            logger.log(1, "no such plan")
            return self.engine if self.takes_plans else None

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    @property
    def engine(self) -> SimpleNamespace:
        def create(settings: object) -> Context:
            self.contexts.append(Context(settings))
            self.contexts[-1].refuses = self.refuses
            return self.contexts[-1]

        def settings() -> SimpleNamespace:
            made = SimpleNamespace(strategy=None)
            made.set_execution_context_allocation_strategy = lambda strategy: setattr(made, "strategy", strategy)
            return made

        return SimpleNamespace(
            device_memory_size_v2=77, create_execution_context=create, create_runtime_config=settings
        )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(tensorrt_engine.importlib, "import_module", lambda name: made)
    return made


def opened(tmp_path: Path, *profiles: Profile) -> TensorRtEngine:
    (tmp_path / "p.plan").write_bytes(b"plan")
    return TensorRt("tensorrt-rtx").engine(step(*profiles), tmp_path / "p.plan")


def enqueue(engine: TensorRtEngine, kept: int, scratch: int = 7) -> None:
    engine.enqueue(PLACES, {"batch": 1, "kept1": kept, "length1": kept + 1}, scratch, 9)


def test_a_context_for_each_size_and_program(library: Library, tmp_path: Path) -> None:
    engine = opened(tmp_path)
    for kept, scratch in ((5, 7), (6, 7), (5, 7), (5, 8), (6, 8)):
        enqueue(engine, kept, scratch)
    assert len(library.contexts) == 4 and engine.scratch_bytes == 77
    first = library.contexts[0]
    assert first.calls == [
        ("set_input_shape", "gathered1", (1, 6, 8)),
        *[
            ("set_device_memory", 7, 77), ("set_tensor_address", "gathered1", 100), ("set_tensor_address", "tokens2", 200),
            ("execute_async_v3", 9),
        ] * 2,
    ]  # fmt: skip


def test_sizes_that_do_not_come_again_share_a_context(library: Library, tmp_path: Path) -> None:
    """Exact passes would have one for every count otherwise. A profile is chosen anew, also where it is the first one."""
    engine = opened(tmp_path, Profile(least=1, best=4, most=4), Profile(least=5, best=9, most=9))
    for kept in (3, 7, 2):
        engine.enqueue(PLACES, {"batch": 1, "kept1": kept, "length1": kept + 1}, 7, 9, lasting=False)
    [context] = library.contexts
    chosen = [call for call in context.calls if call[0] in ("set_optimization_profile_async", "set_input_shape")]
    assert chosen == [
        ("set_input_shape", "gathered1", (1, 4, 8)),
        ("set_optimization_profile_async", 1, 9), ("set_input_shape", "gathered1", (1, 8, 8)),
        ("set_optimization_profile_async", 0, 9), ("set_input_shape", "gathered1", (1, 3, 8)),
    ]  # fmt: skip


def test_kernels_are_compiled_before_they_are_captured(library: Library, tmp_path: Path) -> None:
    enqueue(opened(tmp_path), 5)
    settings = library.contexts[0].settings
    assert isinstance(settings, SimpleNamespace)
    assert (settings.strategy, settings.dynamic_shapes_kernel_specialization_strategy) == ("ours", "eager")


def test_full_tensorrt_has_no_such_setting(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Library, "DynamicShapesKernelSpecializationStrategy")
    enqueue(opened(tmp_path), 5)
    assert library.contexts[0].settings == "ours"


def test_the_narrowest_profile_that_holds_the_count(library: Library, tmp_path: Path) -> None:
    ranges = [
        Profile(least=1, best=100, most=100),
        Profile(least=1, best=10, most=10),
        Profile(least=10, best=50, most=50),
    ]
    for kept, profile in ((5, 1), (10, 1), (11, 2), (50, 2), (51, None), (100, None)):
        enqueue(opened(tmp_path, *ranges), kept)
        chosen = [call for call in library.contexts[-1].calls if call[0] == "set_optimization_profile_async"]
        assert chosen == ([] if profile is None else [("set_optimization_profile_async", profile, 9)]), kept


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
