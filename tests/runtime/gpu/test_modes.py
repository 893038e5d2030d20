"""The modes on a stand-in for a GPU, against the chain on the CPU over the same graphs: identical."""

from __future__ import annotations

import random

import pytest
from fake_gpu import (
    FakeDevice,
    FakeGraph,
    HostCallbackNode,
    SwitchNode,
)
from lowered import CAPACITIES, KINDS, Maker, same, some_thresholds
from models import random_images

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.graph_mode import GraphMode
from dovit.runtime.gpu.inputs import Transfers
from dovit.runtime.gpu.stepped_modes import ExactMode, SegmentedMode


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
