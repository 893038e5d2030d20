"""The modes on the fake GPU give the same results as the chain on the CPU over the same graphs."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from fake_gpu import (
    FakeDevice,
    FakeGraph,
    FakeKernels,
    HostCallbackNode,
    SwitchNode,
)
from lowered import CAPACITIES, KINDS, Maker, same, some_thresholds
from models import random_images

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.graph_mode import GraphMode
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.stepped_modes import ExactMode, SegmentedMode
from dovit.runtime.gpu.transfers import Transfers


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
    """One capture for all ξ, images and capacities, in any order: no pass reads what another left in memory."""
    made = make(decoder, head, prefix, batch)
    program, _ = made.load_program(FakeDevice())
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


def test_one_launch_an_image(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No work runs, and no result is there, before the caller waits."""
    made = make()
    device = FakeDevice()
    program, _ = made.load_program(device)
    mode = GraphMode(program, Transfers(program))
    launched: list[FakeGraph] = []
    launch = FakeGraph.launch
    monkeypatch.setattr(FakeGraph, "launch", lambda self, stream: (launched.append(self), launch(self, stream))[1])
    streams = len(device.streams)
    mode.launch(random_images(made.model.config).numpy(), (0.5, 0.5))
    assert len(launched) == 1 and len(device.streams) == streams
    assert sum(len(stream.waiting) for stream in device.streams.values()) == 1
    mode.wait()


def test_a_conditional_body_for_each_capacity(make: Maker) -> None:
    made = make()
    program, _ = made.load_program(FakeDevice())
    mode = GraphMode(program, Transfers(program))
    switches = [node for node in mode._first.builder.captured if isinstance(node, SwitchNode)]  # type: ignore[attr-defined]
    assert [len(switch.bodies) for switch in switches] == [len(CAPACITIES)] * 2
    assert all(switch.condition.default == len(CAPACITIES) for switch in switches)
    # capacity 0: the gather alone, and for its decision nothing to do
    assert [len(switch.bodies[0].captured) for switch in switches] == [1, 1]


def test_unsupported_nodes_are_refused(make: Maker) -> None:
    made = make()
    program, engines = made.load_program(FakeDevice())
    engines["block2"].node = HostCallbackNode
    with pytest.raises(DovitError, match=r"block 2 with 5 tokens cannot be part of .*HostCallbackNode.*segmented mode"):
        GraphMode(program, Transfers(program))
    SegmentedMode(program, Transfers(program))


@pytest.mark.parametrize("mode", [GraphMode, SegmentedMode])
@pytest.mark.parametrize("name", ["stem", "block2", "block3", "decoder"])
def test_a_plan_that_fails_ends_the_capture(
    make: Maker, mode: type[GraphMode] | type[SegmentedMode], name: str
) -> None:
    """A graph without it would compute with values of other passes. Every capture is ended, so that the next can begin."""
    made = make()
    device = FakeDevice()
    program, engines = made.load_program(device)
    engines[name].refuses = True
    with pytest.raises(DovitError, match=f"could not enqueue {name}"):
        mode(program, Transfers(program))
    assert not device.building
    engines[name].refuses = False
    images = random_images(made.model.config).numpy()
    running = mode(program, Transfers(program))
    running.launch(images, (0.5, 0.5))
    same(running.wait(), made.chain.run(images, (0.5, 0.5), CAPACITIES))


@pytest.mark.parametrize("name", ["stem", "block2", "decoder"])
@pytest.mark.parametrize("how", ["invalidates", "TensorRT says so", "unsupported node"])
def test_a_plan_that_cannot_be_captured(make: Maker, how: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tried before any graph is built, for ending an invalidated one crashes: the segmented mode, a sentence in the log, and the
    same results. Where the whole image as one graph is demanded, an error."""
    made, device = make(), FakeDevice()
    engines = made.engines_on(device)

    def chain(graph: bool | None) -> GpuChain:
        return made.chain_over(engines, FakeKernels(device), device, graph)

    if how == "invalidates":
        engines[name].invalidates = True
    elif how == "unsupported node":
        engines[name].node = HostCallbackNode
    else:
        engines[name].reason = how
    with pytest.raises(
        DovitError, match=rf"{name} with \d+ tokens cannot be .*; use the segmented mode \(graph=False\)"
    ):
        chain(True)
    with caplog.at_level("WARNING", "dovit"):
        running = chain(None)
    assert running.captured.name == "segmented"
    reason = {"invalidates": "previous error during capture", "unsupported node": "CU_GRAPH_NODE_TYPE_HOST"}.get(
        how, how
    )
    said = [record.getMessage() for record in caplog.records if record.name.startswith("dovit")]
    assert said and all(name in line and reason in line for line in said)
    for seed in range(2):
        images = random_images(made.model.config, seed=seed).numpy()
        for xi in some_thresholds(made, images):
            same(running.run(images, xi, CAPACITIES), made.chain.run(images, xi, CAPACITIES))
    assert not device.building


def test_every_kernel_runs_before_the_first_capture(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA loads a kernel's code when it is first launched, which may not happen during a capture."""
    made, device = make("setr-mla", "fcn", 2), FakeDevice()
    kernels, launched = FakeKernels(device), dict[str, set[bool]]()
    for kernel in ("decide", "gather", "reconstruct", "labels"):
        launch = getattr(kernels, kernel)

        def seen(*arguments: int, launch: Callable[..., None] = launch, kernel: str = kernel) -> None:
            launched.setdefault(kernel, set()).add(arguments[-1] in device.building)
            if arguments[-1] in device.building:
                assert False in launched[kernel], kernel
            launch(*arguments)

        monkeypatch.setattr(kernels, kernel, seen)
    LoadedProgram(made.manifest, made.plans, made.program, made.engines_on(device), kernels, device).warm_up()
    assert launched == {kernel: {False} for kernel in ("decide", "gather", "reconstruct", "labels")}


def test_a_driver_without_switch_nodes_is_refused(make: Maker) -> None:
    program, _ = make().load_program(FakeDevice(can_switch=False))
    with pytest.raises(DovitError, match=r"fake GPU: SWITCH nodes need CUDA 12\.8 .* segmented mode"):
        GraphMode(program, Transfers(program))
