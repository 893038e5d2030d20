"""The chain's modes on a stand-in for a GPU, against the chain on the CPU over the same graphs: identical."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import make_bundle
from fake_gpu import (
    EmulatedKernels,
    FakeDevice,
    FakeEngine,
    FakeGraph,
    FakeKernels,
    FakeStream,
    HostCallbackNode,
    KernelNode,
    SwitchNode,
)
from models import random_images, randomised, small_config, spreading_thresholds

from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import Manifest, Schedule
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.graph_mode import GraphMode
from dovit.runtime.gpu.inputs import Transfers
from dovit.runtime.gpu.memory import plan_memory, shared_places, slots_name, staying_name, tensor_bytes
from dovit.runtime.gpu.program import Program
from dovit.runtime.gpu.segments import cut_segments
from dovit.runtime.gpu.stepped_modes import ExactMode, SegmentedMode
from dovit.runtime.session import Mode, Session

CAPACITIES = (0, 5, 11, 17, 24)
KINDS = [
    ("setr-naive", "conv", 1), ("setr-naive", "setr-k3", 1), ("setr-mla", "conv", 1), ("setr-mla", "fcn", 2),
    ("segmenter-mask", "setr-k1", 1), ("segmenter-linear", "fcn", 0),
]  # fmt: skip


@dataclass
class Made:
    """A bundle's steps as plans of a batch, with ONNX Runtime to run them."""

    model: DoViT
    manifest: Manifest
    plans: PlanSet
    engines: dict[str, OnnxRuntimeEngine]
    chain: Chain

    def program(self, device: FakeDevice) -> tuple[Program, dict[str, FakeEngine]]:
        engines = {
            step.name: FakeEngine(device, step, self.engines[step.name])
            for step in self.plans.steps
            if step.kind == "plan"
        }
        return Program(self.manifest, self.plans, engines, FakeKernels(device), device), engines


Maker = Callable[..., Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    made: dict[tuple[object, ...], Made] = {}

    def build(decoder: str = "setr-naive", head: str = "conv", prefix: int = 1, batch: int = 1) -> Made:
        key = (decoder, head, prefix, batch)
        if key not in made:
            folder: Path = tmp_path_factory.mktemp("made")
            model = randomised(small_config(decoder, prefix, head))
            manifest = make_bundle(model, folder / "bundle", CAPACITIES)
            engines, described = {}, []
            for step in lower_bundle(open_bundle(folder / "bundle"), "fp32", batch=batch):
                file = folder / f"{step.described.name.replace('/', '-')}.onnx"
                write_part(step.graph, file)
                engines[step.described.name] = OnnxRuntimeEngine(step.described.name, file)
                described.append(step.described)
            plans = PlanSet(
                flavour="tensorrt-rtx", version="0", cuda=None, compute_capabilities=(), precision="fp32", batch=batch,
                plugin_version=None, workspace_mib=None, optimisation_level=None, steps=tuple(described),
            )  # fmt: skip
            made[key] = Made(model, manifest, plans, engines, Chain(manifest, list(engines.values()), described))
        return made[key]

    return build


def some_thresholds(made: Made, images: np.ndarray) -> list[tuple[float, ...]]:
    """ξ that stop nothing, everything at once, everything at the second decision, and some."""
    pixels = torch.from_numpy(images)
    spread = [
        spreading_thresholds(made.model, pixels, keep, list(CAPACITIES))
        for keep in ((0.7, 0.7), (0.4, 0.5), (0.8, 0.2))
    ]
    return [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), *spread]


def same(found: ChainResult, expected: ChainResult) -> None:
    """Sums are added in another order than ONNX Runtime's, so a confidence may differ in its last digits; nothing else may."""
    assert len(found.decisions) == len(expected.decisions)
    for one, other in zip(found.decisions, expected.decisions, strict=True):
        assert np.array_equal(one.index, other.index) and np.array_equal(one.keep, other.keep)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-5)
    assert found.labels.dtype == expected.labels.dtype and found.labels.shape == expected.labels.shape
    assert (found.labels == expected.labels).mean() > 0.999


@pytest.mark.parametrize("mode", [GraphMode, SegmentedMode, ExactMode])
@pytest.mark.parametrize(("decoder", "head", "prefix"), KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_identical_to_the_cpu(
    make: Maker,
    mode: type[GraphMode] | type[SegmentedMode] | type[ExactMode],
    decoder: str,
    head: str,
    prefix: int,
    batch: int,
) -> None:
    """One capture for all ξ, images and capacities, in any order: what one pass leaves in memory does not reach the next."""
    made = make(decoder, head, prefix, batch)
    program, _ = made.program(FakeDevice())
    running = mode(program, Transfers(program))
    allowed = range(made.manifest.tokens + 1) if mode is ExactMode else CAPACITIES
    passes = []
    for seed in range(2):
        images = random_images(made.model.config, batch, seed).numpy()
        passes += [(images, xi) for xi in some_thresholds(made, images)]
    random.Random(0).shuffle(passes)
    counts = set()
    for images, xi in passes:
        running.launch(images, xi)
        result = running.wait()
        same(result, made.chain.run(images, xi, allowed))
        counts.add(tuple(d.keep.shape[1] for d in result.decisions))
    assert len(counts) >= 5, "the passes were to differ"


@pytest.mark.parametrize(("decoder", "head", "prefix"), [("setr-naive", "conv", 1), ("setr-mla", "fcn", 2)])
def test_with_the_kernels_themselves(
    make: Maker, emulated_library: ctypes.CDLL, decoder: str, head: str, prefix: int
) -> None:
    """The whole image as one graph of the real launchers, on emulated threads: decide sets the switches by itself."""
    made = make(decoder, head, prefix, 2)
    device = FakeDevice()
    engines = {s.name: FakeEngine(device, s, made.engines[s.name]) for s in made.plans.steps if s.kind == "plan"}
    chain = GpuChain(made.manifest, made.plans, engines, EmulatedKernels(device, emulated_library), device)
    images = random_images(made.model.config, 2).numpy()
    for xi in some_thresholds(made, images)[2:6]:
        same(chain.run(images, xi, CAPACITIES), made.chain.run(images, xi, CAPACITIES))
    same(chain.run(images, xi, range(25)), made.chain.run(images, xi, range(25)))


def test_one_launch_an_image(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing runs or is known before the caller waits."""
    made = make()
    device = FakeDevice()
    program, _ = made.program(device)
    mode = GraphMode(program, Transfers(program))
    launched: list[FakeGraph] = []
    launch = FakeGraph.launch
    monkeypatch.setattr(FakeGraph, "launch", lambda self, stream: (launched.append(self), launch(self, stream))[1])
    streams = len(device.streams)
    mode.launch(random_images(made.model.config).numpy(), (0.5, 0.5))
    assert len(launched) == 1 and len(device.streams) == streams
    assert sum(len(stream.waiting) for stream in device.streams.values()) == 1
    mode.wait()


def test_a_body_for_each_capacity(make: Maker) -> None:
    made = make()
    program, _ = made.program(FakeDevice())
    mode = GraphMode(program, Transfers(program))
    switches = [node for node in mode._first.builder.captured if isinstance(node, SwitchNode)]  # type: ignore[attr-defined]
    assert [len(switch.bodies) for switch in switches] == [len(CAPACITIES)] * 2
    assert all(switch.condition.default == len(CAPACITIES) for switch in switches)
    # capacity 0: the gather alone, and for its decision nothing to do
    assert [len(switch.bodies[0].captured) for switch in switches] == [1, 1]


def test_foreign_nodes_are_refused(make: Maker) -> None:
    made = make()
    program, engines = made.program(FakeDevice())
    engines["block2"].node = HostCallbackNode
    with pytest.raises(DovitError, match=r"block 2 with 5 tokens cannot be part of .*HostCallbackNode.*segmented mode"):
        GraphMode(program, Transfers(program))
    SegmentedMode(program, Transfers(program))


@pytest.mark.parametrize("mode", [GraphMode, SegmentedMode])
@pytest.mark.parametrize("name", ["stem", "block2", "block3", "decoder"])
def test_a_refused_plan_ends_the_capture(make: Maker, mode: type[GraphMode] | type[SegmentedMode], name: str) -> None:
    """A graph that goes on without it would replay what other passes left. Every recording is ended, so the next can begin."""
    made = make()
    device = FakeDevice()
    program, engines = made.program(device)
    engines[name].refuses = True
    with pytest.raises(DovitError, match=f"could not enqueue {name}"):
        mode(program, Transfers(program))
    assert not device.building
    engines[name].refuses = False
    images = random_images(made.model.config).numpy()
    running = mode(program, Transfers(program))
    running.launch(images, (0.5, 0.5))
    same(running.wait(), made.chain.run(images, (0.5, 0.5), CAPACITIES))


def test_a_driver_without_switch(make: Maker) -> None:
    program, _ = make().program(FakeDevice(can_switch=False))
    with pytest.raises(DovitError, match=r"fake GPU: SWITCH nodes need CUDA 12\.8 .* segmented mode"):
        GraphMode(program, Transfers(program))


def test_too_little_memory_is_said_before_anything_is_allocated(make: Maker) -> None:
    device = FakeDevice(free_bytes=1 << 10)
    with pytest.raises(DovitError, match=r"tensorrt-rtx fp32 plans need \d+ MiB on fake GPU, of which 0 MiB are free"):
        make().program(device)
    assert not device.allocated


@pytest.mark.parametrize(("decoder", "head", "prefix"), KINDS)
def test_memory_is_shared_only_by_what_is_never_needed_at_once(
    make: Maker, decoder: str, head: str, prefix: int
) -> None:
    """Found anew here from each step's inputs and outputs."""
    made = make(decoder, head, prefix)
    steps, manifest = made.plans.steps, made.manifest
    plan = plan_memory(manifest, steps, 1, 64)
    sizes, owner = tensor_bytes(manifest, steps, 1), shared_places(manifest, steps)
    lives: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for spec in (*step.inputs, *step.outputs):
            name = "thresholds" if spec.name.startswith("threshold") else owner.get(spec.name, spec.name)
            lives[name] = (lives.get(name, (number, number))[0], number)
    for number, decision in enumerate(manifest.decisions, start=1):  # what no step names
        [made_by] = [n for n, step in enumerate(steps) if decision.keep in [spec.name for spec in step.outputs]]
        read_by = [n for n, step in enumerate(steps) if decision.keep in [spec.name for spec in step.inputs]]
        lives[slots_name(number)] = (made_by, max(read_by))
        lives[staying_name(number)] = (made_by, made_by)
    for name in lives:
        assert plan.offsets[name] >= 0 and plan.offsets[name] + sizes[name] <= plan.offsets["scratch"] <= plan.size
    results = {"labels", *(n for d in manifest.decisions for n in (d.confidence, d.state.index, d.keep))}
    for one in lives:
        for other in lives:
            if one >= other:
                continue
            apart = (
                plan.offsets[one] + sizes[one] <= plan.offsets[other]
                or plan.offsets[other] + sizes[other] <= plan.offsets[one]
            )
            meet = max(lives[one][0], lives[other][0]) <= min(lives[one][1], lives[other][1])
            assert apart or not (meet or {one, other} & results), (one, other)
    assert plan.size < sum(sizes.values())


CHAIN_KINDS = [("setr-naive", "conv", 1), ("setr-mla", "fcn", 2)]


def chain_of(made: Made, **options: bool) -> tuple[GpuChain, FakeDevice, dict[str, FakeEngine]]:
    device = FakeDevice(can_switch=options.pop("can_switch", True))
    engines = {
        step.name: FakeEngine(device, step, made.engines[step.name]) for step in made.plans.steps if step.kind == "plan"
    }
    return GpuChain(made.manifest, made.plans, engines, FakeKernels(device), device, **options), device, engines


@pytest.mark.parametrize(("decoder", "head", "prefix"), CHAIN_KINDS)
def test_schedules_and_counts(make: Maker, decoder: str, head: str, prefix: int) -> None:
    """What a session asks of a chain: bucketed, exact, and a given number of tokens, in turns."""
    made = make(decoder, head, prefix)
    chain, _, _ = chain_of(made)
    every = range(made.manifest.tokens + 1)
    images = random_images(made.model.config).numpy()
    for xi in some_thresholds(made, images):
        for counts in (None, (13, 6), (24, 0), (0, 0), (24, 24)):  # the last would do for any decision after it
            for capacities in (CAPACITIES, every):
                same(
                    chain.run(images, xi, capacities, counts=counts),
                    made.chain.run(images, xi, capacities, counts=counts),
                )


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_sessions_agree(make: Maker, mode: Mode) -> None:
    """The same calls, the same results, for images of the bundle's size and of others, which want logits; bucketed by default."""
    made = make("setr-pup")
    chain, _, _ = chain_of(made)
    on_gpu = Session(made.manifest, chain, "tensorrt-rtx", "bucketed")
    on_cpu = Session(made.manifest, made.chain, "onnxruntime")
    noise = np.random.default_rng(0)
    for size in (made.manifest.image_size, (100, 130)):
        image = noise.integers(0, 256, (*size, 3), np.uint8)
        for return_logits in (False, True):
            found = on_gpu(image, mode=mode, thresholds=0.7, return_logits=return_logits)
            expected = on_cpu(image, mode=mode, thresholds=0.7, schedule="bucketed", return_logits=return_logits)
            assert found.kept == expected.kept and np.array_equal(found.keep_maps, expected.keep_maps)
            assert (found.labels == expected.labels).mean() > 0.999
            assert (found.logits is None) == (not return_logits)
            if found.logits is not None and expected.logits is not None:
                np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)


def one_session(made: Made, where: str) -> Session:
    if where == "cpu":
        return Session(made.manifest, made.chain, "onnxruntime", "bucketed")
    return Session(made.manifest, chain_of(made)[0], "tensorrt-rtx", "bucketed")


@pytest.mark.parametrize("return_logits", [True, False])
@pytest.mark.parametrize(("mode", "schedule"), [("whole", None), ("whole", "exact"), ("slide", None)])
@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_a_session_streams(make: Maker, where: str, mode: Mode, schedule: Schedule | None, return_logits: bool) -> None:
    """The same as call by call, images of the bundle's size and of others in turns."""
    made = make()
    session, alone = one_session(made, where), one_session(made, where)
    noise = np.random.default_rng(1)
    sizes = [made.manifest.image_size, (100, 130), made.manifest.image_size, (70, 101), (64, 200)]
    images = [noise.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number, image in enumerate(images):
            taken.append(number)
            yield image

    found = session.stream(camera(), mode=mode, thresholds=0.7, schedule=schedule, return_logits=return_logits)
    assert not taken
    for number, (result, image) in enumerate(zip(found, images, strict=True)):
        assert len(taken) <= number + 3, "images are taken as they are needed"
        expected = alone(image, mode=mode, thresholds=0.7, schedule=schedule, return_logits=return_logits)
        assert result.kept == expected.kept and np.array_equal(result.labels, expected.labels)
        assert result.labels.shape == image.shape[:2]
        if expected.logits is None:
            assert result.logits is None
        else:
            assert result.logits is not None and np.array_equal(result.logits, expected.logits)
    assert number == len(images) - 1
    with pytest.raises(UsageError, match="lies outside"):
        session.stream(images, thresholds=2)


@pytest.mark.parametrize("can_switch", [True, False])
def test_a_stream_keeps_the_order(make: Maker, can_switch: bool) -> None:
    made = make()
    chain, _, _ = chain_of(made, can_switch=can_switch)
    images = [random_images(made.model.config, 1, seed).numpy() for seed in range(5)]
    xi = some_thresholds(made, images[0])[-1]
    for count in (0, 1, 2, 5):
        found = list(chain.stream(images[:count], xi))
        assert len(found) == count
        for result, image in zip(found, images, strict=False):
            same(result, made.chain.run(image, xi, CAPACITIES))


def test_a_pass_within_a_stream_is_refused_and_one_after_it_is_not(make: Maker) -> None:
    made = make()
    chain, _, _ = chain_of(made)
    image = random_images(made.model.config).numpy()
    results = chain.stream([image, image], (0.5, 0.5))
    next(results)
    with pytest.raises(UsageError, match="a stream of this session is under way"):
        chain.run(image, (0.5, 0.5), CAPACITIES)
    results.close()
    same(chain.run(image, (0.5, 0.5), CAPACITIES), made.chain.run(image, (0.5, 0.5), CAPACITIES))


def test_threads_share_a_chain(make: Maker) -> None:
    made = make()
    chain, _, _ = chain_of(made)
    images = [random_images(made.model.config, 1, seed).numpy() for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: chain.run(image, (0.6, 0.5), CAPACITIES), images))
    for result, image in zip(found, images, strict=True):
        same(result, made.chain.run(image, (0.6, 0.5), CAPACITIES))


def test_another_batch_is_refused(make: Maker) -> None:
    made = make()
    chain, _, _ = chain_of(made)
    with pytest.raises(DovitError, match="take 1 images at a time, not 2"):
        chain.run(random_images(made.model.config, 2).numpy(), (0.5, 0.5), CAPACITIES)


@pytest.mark.parametrize("where", ["launch", "sync", "copy"])
def test_an_error_in_flight_ends_the_session(make: Maker, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sentence, and at once the next time: what the GPU would compute from there on is nobody's guess."""
    made = make()
    chain, _, _ = chain_of(made)
    image = random_images(made.model.config).numpy()
    good = chain.run(image, (0.5, 0.5), CAPACITIES)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access\nand more lines")

    target = {"launch": (FakeGraph, "launch"), "sync": (FakeStream, "sync"), "copy": (FakeDevice, "copy")}[where]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        capacities = CAPACITIES if where != "copy" else range(25)  # captured copies are not asked for again
        with pytest.raises(
            DovitError, match=r"^the GPU failed: CUDA_ERROR_ILLEGAL_ADDRESS: .* access; this session is dead"
        ):
            chain.run(image, (0.5, 0.5), capacities)
    with pytest.raises(DovitError, match=r"this session is dead \(the GPU failed: .*\): load the bundle again"):
        chain.run(image, (0.5, 0.5), CAPACITIES)
    fresh, _, _ = chain_of(made)
    same(fresh.run(image, (0.5, 0.5), CAPACITIES), good)


@pytest.mark.parametrize("graph", [True, False])
def test_a_failure_at_any_step_of_loading_is_one_sentence(
    make: Maker, graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th thing that is asked of the device fails, for every n: no other error, no hang, no recording left open."""
    made = make()
    submit = FakeDevice.submit
    asked: list[int] = []
    failing = [0]

    def counted(self: FakeDevice, stream: int, node: KernelNode) -> None:
        asked.append(stream)
        if len(asked) == failing[0]:
            raise DovitError("CUDA refuses")
        submit(self, stream, node)

    monkeypatch.setattr(FakeDevice, "submit", counted)
    chain_of(made, graph=graph)
    for number in range(1, len(asked) + 1):
        asked.clear()
        failing[0] = number
        device = FakeDevice()
        engines = {s.name: FakeEngine(device, s, made.engines[s.name]) for s in made.plans.steps if s.kind == "plan"}
        with pytest.raises(DovitError, match="CUDA refuses"):
            GpuChain(made.manifest, made.plans, engines, FakeKernels(device), device, graph=graph)
        assert not device.building


def test_segments_of_every_kind(make: Maker) -> None:
    made = make("setr-mla", "fcn", 2)
    segments = cut_segments(made.plans.steps, 2)
    kinds: Sequence[Sequence[str]] = [[step.kind for step in steps] for steps in segments.after]
    assert [steps[-1] for steps in kinds] == ["decide", "decide", "reconstruct"]
    assert [steps[0] for steps in kinds] == ["plan", "gather", "gather"]
    assert [step.name for step in segments.decoder] == ["decoder", "labels"]
    assert [s for steps in (*segments.after, segments.decoder) for s in steps] == list(made.plans.steps)
