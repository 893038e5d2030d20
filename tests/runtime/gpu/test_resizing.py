"""Images of other sizes than the bundle's on a stand-in for a GPU: resized there, to the bit as if Pillow had done it before, and
labelled there at their own size."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_gpu import EmulatedKernels, FakeDevice, FakeGraph, FakeKernels, FakeStream, KernelNode, MemcpyNode
from models import randomised, small_config
from torch_chains import torch_chain

from dovit.export.model import DoViT
from dovit.runtime.chain import ChainResult
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu import profile as profiling
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.resizing import MAX_ROWS, TABLES, ImageResizer
from dovit.runtime.resize import resize_image
from dovit.runtime.session import Session

CAPACITIES = (0, 5, 11, 17, 24)
EVERY = range(25)
SIZE = (64, 96)
# growing and shrinking, in one direction and in both; the last is as many pixels as the bundle's in another shape
SIZES = [(65, 97), (200, 130), (64, 300), (300, 96), SIZE, (1, 1), (30, 40), (128, 192), (96, 64)]
XI = (0.6, 0.5)


@pytest.fixture(scope="module")
def model() -> DoViT:
    return randomised(small_config())


def some(size: tuple[int, int], batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *size, 3), np.uint8)


def by_pillow(images: np.ndarray) -> np.ndarray:
    return np.stack([resize_image(image, SIZE) for image in images])


def largest(labels: np.ndarray, logits: np.ndarray) -> bool:
    """Whether each label [B, H, W] is of a class whose logit [B, C, h, w] is the largest there, to float32's precision."""
    wide = F.interpolate(torch.from_numpy(logits).double(), size=labels.shape[1:], mode="bilinear")
    chosen = wide.gather(1, torch.from_numpy(labels).long()[:, None])[:, 0]
    return float((wide.amax(dim=1) - chosen).max()) < 1e-5


def same(found: ChainResult, expected: ChainResult, size: tuple[int, int] = SIZE) -> None:
    """`expected` is of the images as resized before, and has logits; `found` has labels of their own `size`."""
    assert found.labels.shape[1:] == size and largest(found.labels, expected.logits)
    if found.labels.shape == expected.labels.shape:
        assert np.array_equal(found.labels, expected.labels)
    assert not found.logits.size or np.array_equal(found.logits, expected.logits)
    assert len(found.decisions) == len(expected.decisions)
    for one, other in zip(found.decisions, expected.decisions, strict=True):
        assert np.array_equal(one.confidence, other.confidence)
        assert np.array_equal(one.index, other.index) and np.array_equal(one.keep, other.keep)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("capacities", [CAPACITIES, EVERY])
def test_resizing_on_the_gpu_equals_pillow(model: DoViT, graph: bool, batch: int, capacities: Sequence[int]) -> None:
    chain = torch_chain(model, CAPACITIES, batch=batch, graph=graph)
    plain = torch_chain(model, CAPACITIES, batch=batch, graph=graph)
    answers = set()
    for size in SIZES:
        images = some(size, batch)
        found = chain.run(images, XI, capacities)
        same(found, plain.run(by_pillow(images), XI, capacities), size)
        answers.add(found.logits.tobytes())
    assert len(answers) == len(SIZES), "the passes were to differ"


def test_with_the_kernel_itself(model: DoViT, emulated_library: ctypes.CDLL) -> None:
    """Both orders of the two directions, an image turned over in memory, and two of a batch."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, batch=2, device=device, kernels=EmulatedKernels(device, emulated_library))
    for images in (some((70, 90), 2), some((5, 3), 2)[:, ::-1], some((200, 7), 2)):
        found, expected = chain.run(images, XI, CAPACITIES), chain.run(by_pillow(images), XI, CAPACITIES)
        same(found, expected, images.shape[1:3])


def test_a_stream_of_all_sizes(model: DoViT) -> None:
    chain = torch_chain(model, CAPACITIES)
    images = [some(size, seed=number) for number, size in enumerate(SIZES)]
    expected = [chain.run(by_pillow(image), XI, CAPACITIES) for image in images]
    for found, other, size in zip(chain.stream(images, XI), expected, SIZES, strict=True):
        assert not found.logits.size
        same(found, other, size)


def test_a_stream_that_nobody_ends(model: DoViT) -> None:
    """Work that it left queued has ended before a larger image uses its memory."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    results = chain.stream([some((20, 20))] * 4, XI)
    next(results)
    results.close()
    assert not any(stream.waiting for stream in device.streams.values())
    images = some((400, 300))
    same(chain.run(images, XI, CAPACITIES), chain.run(by_pillow(images), XI, CAPACITIES), (400, 300))


def test_one_launch_and_nothing_more(model: DoViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second image of a size: the upload, ξ, a kernel, the graph, a kernel and the labels, none of which runs before the
    caller waits."""
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    chain.run(some((80, 100)), XI, CAPACITIES)
    launched: list[FakeGraph] = []
    launch, sync = FakeGraph.launch, FakeStream.sync
    monkeypatch.setattr(FakeGraph, "launch", lambda self, stream: (launched.append(self), launch(self, stream))[1])
    synced: list[FakeStream] = []
    monkeypatch.setattr(FakeStream, "sync", lambda self: (synced.append(self), sync(self))[1])
    submitted: list[KernelNode] = []
    submit = device.submit
    device.submit = lambda stream, node: (submitted.append(node), submit(stream, node))[1]  # type: ignore[method-assign]
    memory, streams = len(device.allocated), len(device.streams)
    chain.captured.launch(some((80, 100), seed=1), XI)
    assert [type(node) for node in submitted] == [MemcpyNode, MemcpyNode, KernelNode, KernelNode, MemcpyNode]
    assert len(launched) == 1 and not synced
    assert (len(device.allocated), len(device.streams), len(device.released)) == (memory, streams, 0)
    chain.captured.wait()


def test_the_second_graph_is_the_first_without_its_copies(model: DoViT) -> None:
    """And is not there before it is needed, nor made twice."""
    chain = torch_chain(model, CAPACITIES)
    mode = chain.captured
    chain.run(some(SIZE), XI, CAPACITIES)
    assert mode._without_copies is None  # type: ignore[attr-defined]
    chain.run(some((20, 20)), XI, CAPACITIES)
    made = mode._without_copies  # type: ignore[attr-defined]
    chain.run(some((30, 20)), XI, CAPACITIES)
    assert made is mode._without_copies  # type: ignore[attr-defined]
    first, second = ([type(node) for node in graph.builder.captured] for graph in (mode._first, made))  # type: ignore[attr-defined]
    assert first == [MemcpyNode, MemcpyNode, *second] and second[0] is KernelNode


def test_memory_grows_and_is_given_back(model: DoViT) -> None:
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    chain.run(some(SIZE), XI, CAPACITIES)
    before, held = len(device.allocated), chain.device_bytes
    chain.run(some((100, 100)), XI, CAPACITIES)
    pixels = 100 * 100 * 3
    assert len(device.allocated) == before + 4 and pixels < chain.device_bytes - held < 4 * pixels
    for size, taken, released in [((50, 50), 4, 0), ((200, 300), 4, 4), ((200, 299), 4, 4), ((300, 300), 4, 8)]:
        chain.run(some(size), XI, CAPACITIES)
        assert (len(device.allocated), len(device.released)) == (before + taken, released)


def test_weights_are_computed_once_a_length_and_not_kept_for_ever(model: DoViT) -> None:
    device = FakeDevice()
    kernels = FakeKernels(device)
    asked: list[tuple[int, int]] = []
    taps = kernels.resize_taps
    kernels.resize_taps = lambda *lengths: (asked.append(lengths), taps(*lengths))[1]  # type: ignore[method-assign]
    resizing = ImageResizer(device, kernels, SIZE, 1)
    for size in [(10, 20), (10, 20), (10, 30), (20, 30)]:
        resizing.write(some(size))
    assert asked == [(20, 96), (10, 64), (30, 96), (20, 64)]
    for width in range(100, 100 + TABLES):
        resizing.write(some((10, width)))
    asked.clear()
    resizing.write(some((10, 20)))
    assert asked == [(20, 96)]


@pytest.mark.parametrize("size", [(100, 130), (50, 40), SIZE])
def test_a_session_hands_on_the_image_as_it_is(
    model: DoViT, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = torch_chain(model, CAPACITIES)
    session = Session(chain.manifest, chain, "tensorrt-rtx", "bucketed")
    seen: list[tuple[int, ...]] = []
    run = chain.run
    monkeypatch.setattr(chain, "run", lambda images, *a, **o: (seen.append(images.shape), run(images, *a, **o))[1])
    image = some(size)[0]
    found = session(image, threshold=0.6, return_logits=True)
    assert seen == [(1, *size, 3)] and found.labels.shape == size
    monkeypatch.setattr(chain, "accepts_size", lambda size: size == SIZE)
    expected = session(image, threshold=0.6, return_logits=True)
    assert seen[1] == (1, *SIZE, 3)
    assert found.logits is not None and largest(found.labels[None], found.logits[None])
    assert np.array_equal(found.labels, expected.labels) and np.array_equal(found.logits, expected.logits)
    assert np.array_equal(found.keep_maps, expected.keep_maps)


def test_an_image_with_too_many_rows_is_resized_by_the_host(model: DoViT) -> None:
    chain = torch_chain(model, CAPACITIES)
    image = some((MAX_ROWS + 1, 2))
    with pytest.raises(DovitError, match=r"an image of 65536×2: the GPU resizes images of at most 65535 rows"):
        chain.run(image, XI, CAPACITIES)
    with pytest.raises(DovitError, match="at most 65535 rows"):
        list(chain.stream([image], XI))
    found = Session(chain.manifest, chain, "tensorrt-rtx", "bucketed")(image[0], threshold=0.6, return_logits=True)
    most = image[:, :MAX_ROWS]
    same(chain.run(most, XI, CAPACITIES), chain.run(by_pillow(most), XI, CAPACITIES), (MAX_ROWS, 2))
    assert np.array_equal(found.logits, chain.run(by_pillow(image), (0.6, 0.6), CAPACITIES).logits[0])


@pytest.mark.parametrize("exact", [True, False])
def test_profile(model: DoViT, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resizing stands between the copies and the stem, the images' own labels at the end; their bytes counted by hand."""
    monkeypatch.setattr(profiling, "HEAD_START_BYTES", 256)
    chain = torch_chain(model, CAPACITIES, batch=2)
    found = chain.profile(some((100, 50), 2), XI, 2, exact=exact)
    assert [o.name for o in found.operations][:5] == ["copy in", "resize", "resize", "stem", "decide1"]
    assert [o.kind for o in found.operations][:3] == ["copy", "resize", "resize"]
    tables = 256 + 256  # of two numbers each on the stand-in, and aligned
    pixels = -(-2 * 100 * 50 * 3 // 256) * 256
    moved = [o.bytes for o in found.operations]
    assert moved[:3] == [tables + pixels + 8, *[3 * (100 * 50 + 64 * 96)] * 2]
    logits = 2 * 4 * int(np.prod(chain.run(some(SIZE, 2), XI, CAPACITIES).logits.shape[1:]))
    assert [(o.name, o.bytes) for o in found.operations][-2:] == [
        ("resized_labels", logits + 2 * 100 * 50),
        ("copy labels out", 2 * 100 * 50),
    ]
    plain = chain.profile(by_pillow(some((100, 50), 2)), XI, 2, exact=exact)
    assert [o.name for o in plain.operations][:3] == ["copy in", "stem", "decide1"]
    assert plain.operations[0].bytes == 2 * 64 * 96 * 3 + 8
    assert (plain.kept, plain.steps[0].flops) == (found.kept, found.steps[0].flops)


@pytest.mark.parametrize("what", ["allocate", "pinned"])
def test_without_memory_for_an_image_the_session_lives(
    model: DoViT, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    chain = torch_chain(model, CAPACITIES, device=device)
    images = some((100, 100))
    expected = chain.run(images, XI, CAPACITIES)

    def refuse(size: int) -> None:
        raise DovitError(f"{size} bytes are too many")

    with monkeypatch.context() as patch:
        patch.setattr(device, what, refuse)
        with pytest.raises(DovitError, match=r"^\d+ bytes are too many$"):
            chain.run(some((200, 200)), XI, CAPACITIES)
    same(chain.run(images, XI, CAPACITIES), expected, (100, 100))
    list(chain.stream([images], XI))  # takes the second set of memory
    device.free_bytes = 1 << 10
    with pytest.raises(
        DovitError,
        match=r"^resizing an image of 300×200 needs \d+ MiB on fake GPU, of which 0 MiB are free: .* or use mode slide$",
    ):
        list(chain.stream([some(SIZE), some((300, 200))], XI))
    same(chain.run(by_pillow(images), XI, CAPACITIES), expected)


@pytest.mark.parametrize("graph", [True, False])
def test_a_failure_at_any_step_of_the_first_such_image_is_one_sentence(model: DoViT, graph: bool) -> None:
    """The n-th call of the device fails, for every n. A failure while the size is prepared leaves the session usable; no capture
    is left open."""
    images = some((80, 100))

    def fresh() -> tuple[GpuChain, FakeDevice]:
        device = FakeDevice()
        return torch_chain(model, CAPACITIES, device=device, graph=graph), device

    chain, device = fresh()
    loaded = device.asked
    expected = chain.run(images, XI, CAPACITIES)
    ends = []
    for number in range(loaded + 1, device.asked):  # the last is for the logits
        chain, failing = fresh()
        failing.fails_at = number
        with pytest.raises(
            DovitError, match=r"^CUDA refuses(; the session refuses further work: load the bundle again)?$"
        ) as caught:
            chain.run(images, XI, CAPACITIES, logits=False)
        assert not failing.building
        ends.append("refuses further work" in str(caught.value))
        if ends[-1]:
            with pytest.raises(DovitError, match="the session refuses work after an error"):
                chain.run(images, XI, CAPACITIES)
        else:
            same(chain.run(images, XI, CAPACITIES, logits=False), expected, (80, 100))
    assert ends == sorted(ends) and ends[-3:] == [True] * 3 and not ends[0]
