"""The profile of a pass lists every operation once, with the bytes and the arithmetic of the kept tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import EventRecordNode, FakeDevice, FakeGraph, FakeKernels, SwitchNode
from installed import require
from models import random_images, randomised, small_config, spreading_thresholds
from torch_chains import QueuedEngine, torch_chain

from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu import profile as profiling
from dovit.runtime.gpu import stopwatch as naming
from dovit.runtime.gpu.stopwatch import Stopwatch

CAPACITIES = (0, 5, 11, 17, 24)


@pytest.fixture(autouse=True)
def short_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "HEAD_START_BYTES", 256)


@pytest.fixture(scope="module")
def model() -> DoViT:
    return randomised(small_config())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_every_operation_once(model: DoViT, exact: bool, graph: bool) -> None:
    chain = torch_chain(model, CAPACITIES, graph=graph)
    images = random_images(model.config)
    xi = spreading_thresholds(model, images, (0.6, 0.5), None if exact else list(CAPACITIES))
    found = chain.profile(images.numpy(), xi, 3, exact=exact)
    every = range(25) if exact else CAPACITIES
    assert list(found.kept) == [d.keep.shape[1] for d in chain.run(images.numpy(), xi, every).decisions]
    steps = chain.plans.steps
    assert [o.name for o in found.operations] == ["copy in", *(step.name for step in steps), "copy out"]
    assert [o.kind for o in found.operations] == ["copy", *(step.kind for step in steps), "copy"]
    assert all(o.us > 0 and o.bytes > 0 for o in found.operations)
    first, second = found.kept
    tokens = {o.name: o.tokens for o in found.operations}
    assert (tokens["stem"], tokens["block2"], tokens["decide2"], tokens["block3"]) == (24, first, first, second)
    assert [s.name for s in found.steps] == ["stem", "block2", "block3", "decoder"]
    assert sum(s.flops for s in found.steps) == 2 * chain.manifest.macs(found.kept)[1]
    assert sum(s.us for s in found.steps) == pytest.approx(sum(o.us for o in found.operations[1:-1]))
    assert found.mode == ("graph" if graph else "segmented") and found.schedule == ("exact" if exact else "bucketed")
    assert (found.launch_us is None) == exact
    assert found.copy_gb_per_s > 0
    assert 0 < found.scratch_bytes < found.device_bytes == chain.device_bytes
    reported = {o["name"]: o for o in found.as_dict()["operations"]}
    assert reported["stem"]["of_a_copy"] == pytest.approx(reported["stem"]["gb_per_s"] / found.copy_gb_per_s)


def test_bytes_of_the_token_pass(model: DoViT) -> None:
    """Counted by hand: 24 tokens and a class token of 64 float32 channels, of which 11 are kept."""
    chain = torch_chain(model, CAPACITIES)
    images = random_images(model.config)
    xi = spreading_thresholds(model, images, (11 / 24, 5 / 11), list(CAPACITIES))
    found = chain.profile(images.numpy(), xi, 1)
    moved = {o.name: o.bytes for o in found.operations}
    first, second = found.kept
    row = 64 * 4
    assert moved["decide1"] == 4 * 24 + 4 * 24 + 4 * first
    assert moved["gather1"] == 25 * row + (1 + first) * row + (24 - first) * row + 4 * (24 + 24 + first)
    assert moved["sequence/reconstruct"] == second * (2 * row + 4)
    assert moved["copy in"] == 64 * 96 * 3 + 2 * 4
    layers = sum(p.numel() for layer in model.backbone.layers[2:4] for p in layer.parameters())
    head = sum(p.numel() for p in model.heads[1].parameters())
    assert moved["block2"] == 4 * (layers + head) + 2 * (1 + first) * row + 4 * first


def test_nothing_is_left(model: DoViT) -> None:
    """The backbone ends early: what does not run has no time."""
    chain = torch_chain(model, CAPACITIES)
    found = chain.profile(random_images(model.config).numpy(), (0.0, 0.5), 2)
    names = [o.name for o in found.operations]
    assert names == ["copy in", "stem", "decide1", "gather1", "decoder", "labels", "copy out"] and found.kept == (0,)
    assert [s.name for s in found.steps] == ["stem", "block2", "decoder"]
    assert next(s for s in found.steps if s.name == "block2").flops == 0
    assert sum(s.flops for s in found.steps) == 2 * chain.manifest.macs((0,))[1]


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a stand-in for nvtx is reported: +name, -name."""
    reported: list[str] = []

    @contextmanager
    def annotate(name: str, domain: str) -> Iterator[None]:
        assert domain == "dovit"
        reported.append(f"+{name}")
        try:
            yield
        finally:
            reported.append(f"-{name}")

    monkeypatch.setattr(naming, "_nvtx", lambda: SimpleNamespace(annotate=annotate))
    return reported


def test_an_nvtx_range_around_what_is_queued(model: DoViT, ranges: list[str]) -> None:
    """Each operation is queued within the range of its name, and none is open when the next begins."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    assert ranges == [], "a capture is no profile"
    submit = device.submit
    device.submit = lambda stream, node: (ranges.append(type(node).__name__), submit(stream, node))[1]  # type: ignore[method-assign]
    chain.profile(random_images(model.config).numpy(), (1.0, 1.0), 1)
    names = [text for text in ranges if text[0] in "+-"]
    assert names == [sign + text[1:] for text in names[::2] for sign in "+-"]
    once = [
        "head start",
        "copy in",
        "stem",
        "decide",
        "head start",
        "gather",
        "block2",
        "decide",
        "head start",
        "gather",
    ]
    once += ["block3", "reconstruct", "decoder", "labels", "copy out", "launch"]
    copies = ["copy within"] * (profiling.WARM_UP + profiling.COPIES)
    assert [text[1:] for text in names[::2]] == once * (1 + profiling.WARM_UP) + copies
    begin = ranges.index("+stem")
    assert ranges[begin : begin + 5] == ["+stem", "EventRecordNode", "KernelNode", "EventRecordNode", "-stem"]
    chain.run(random_images(model.config).numpy(), (1.0, 1.0), range(25))
    assert ranges.count("+stem") == 1 + profiling.WARM_UP, "a pass that is not timed has no names"


def test_ranges_end_where_something_fails(model: DoViT, ranges: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    chain = torch_chain(model, CAPACITIES)

    def refuse(*_: object, **__: object) -> None:
        raise DovitError("CUDA refuses")

    monkeypatch.setattr(QueuedEngine, "enqueue", refuse)
    with pytest.raises(DovitError, match="CUDA refuses"):
        chain.profile(random_images(model.config).numpy(), (1.0, 1.0), 1)
    assert ranges[-2:] == ["+stem", "-stem"] and len(ranges) == 6


@pytest.mark.parametrize("there", [True, False])
def test_with_nvtx_itself_and_without(model: DoViT, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if there:
        require("nvtx")
    else:
        monkeypatch.setitem(sys.modules, "nvtx", None)
    naming._nvtx.cache_clear()
    found = torch_chain(model, CAPACITIES).profile(random_images(model.config).numpy(), (1.0, 1.0), 1)
    assert len(found.operations) == 2 + len(torch_chain(model, CAPACITIES).plans.steps)
    assert (naming._nvtx() is not None) == there
    naming._nvtx.cache_clear()


def test_captures_hold_no_events(model: DoViT) -> None:
    """Nor is anything marked in a pass that is not timed, which still gives what it gave before."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    images = random_images(model.config).numpy()
    before = chain.run(images, (0.5, 0.5), CAPACITIES)
    chain.profile(images, (0.3, 0.3), 1)
    graph = chain._mode._first  # type: ignore[union-attr]
    assert isinstance(graph, FakeGraph)
    nodes = [*graph.builder.captured]
    nodes += [n for s in nodes if isinstance(s, SwitchNode) for body in s.bodies for n in body.captured]
    assert len(nodes) > 10 and not any(isinstance(node, EventRecordNode) for node in nodes)
    submitted: list[object] = []
    submit = device.submit
    device.submit = lambda stream, node: (submitted.append(node), submit(stream, node))[1]  # type: ignore[method-assign]
    after = chain.run(images, (0.5, 0.5), range(25))
    assert submitted and not any(isinstance(node, EventRecordNode) for node in submitted)
    again = chain.run(images, (0.5, 0.5), CAPACITIES)
    assert np.array_equal(again.labels, before.labels) and after.labels.shape == before.labels.shape


def test_json(model: DoViT) -> None:
    found = torch_chain(model, CAPACITIES).profile(random_images(model.config).numpy(), (0.5, 0.5), 2)
    read = json.loads(json.dumps(found.as_dict()))
    assert read["sum_us"] == pytest.approx(sum(o["us"] for o in read["operations"]))
    for operation in read["operations"]:
        assert operation["gb_per_s"] == pytest.approx(operation["bytes"] / operation["us"] / 1e3)
    for step in read["steps"]:
        assert step["tflop_per_s"] == pytest.approx(step["flops"] / step["us"] / 1e6)


def test_another_batch_is_refused_and_the_session_lives(model: DoViT) -> None:
    chain = torch_chain(model, CAPACITIES)
    with pytest.raises(DovitError, match="take 1 images at a time, not 2"):
        chain.profile(random_images(model.config, 2).numpy(), (0.5, 0.5), 1)
    chain.run(random_images(model.config).numpy(), (0.5, 0.5), CAPACITIES)


def test_the_launch_begins_with_the_upload_of_a_resized_image(model: DoViT) -> None:
    """Its parts have events of their own elsewhere; here the first event comes before everything and the second after."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    image = np.zeros((1, 50, 70, 3), np.uint8)
    chain.profile(image, (0.5, 0.5), 1)
    queued: list[object] = []
    submit = device.submit
    device.submit = lambda stream, node: (queued.append(node), submit(stream, node))[1]  # type: ignore[method-assign]
    profiler = chain._profiler
    assert profiler is not None and profiler._launch(chain.captured, image, (0.5, 0.5)) > 0
    events = [number for number, node in enumerate(queued) if isinstance(node, EventRecordNode)]
    assert (
        events == [0, len(queued) - 1] and len(queued) >= 6
    )  # two copies, the resizing, labels, their copy between them


def test_a_launcher_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a profile a launch costs one Python call more; the launcher is wrapped once."""
    device = FakeDevice()
    looked: list[str] = []

    class Looked(FakeKernels):
        def __getattribute__(self, name: str) -> object:
            looked.append(name)
            return super().__getattribute__(name)

    timed = Stopwatch(device).kernels(Looked(device))
    stream = int(device.create_stream().handle)
    for _ in range(3):
        timed.reconstruct("float32", 0, 0, 0, 1, 0, 0, 0, 0, stream)
    assert timed.gather_scratch_bytes(1, 2, 3) == 12
    assert looked.count("reconstruct") == looked.count("gather_scratch_bytes") == 1
