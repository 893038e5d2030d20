"""The chain on a real GPU with torch blocks in place of TensorRT: the modes, the graph and the kernels are the real ones.

Against the torch model on the CPU, in float32. Skipped where there is no GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from installed import require
from models import random_images, randomised, small_config, spreading_thresholds
from native import skip_unless_rtx_runs

from dovit.benchmarks.torch_chain import torch_chain
from dovit.export.capacities import default_capacities
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.chain import ChainResult
from dovit.runtime.gpu.capture import building
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.cuda_device import CudaDevice
from dovit.runtime.gpu.device import address, stream_address
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image

pytestmark = pytest.mark.gpu
ASSETS = Path(__file__).parents[3] / "assets"
SIZE = (128, 256)  # 8 × 16 tokens
CAPACITIES = default_capacities(128)
EVERY = range(129)
MODES = {"graph": True, "segmented": False}
KINDS = [
    ("setr-naive", "conv", 1),
    ("setr-naive", "setr-k3", 1),
    ("setr-mla", "conv", 2),
    ("segmenter-mask", "setr-k1", 1),
    ("segmenter-linear", "fcn", 0),
    ("segmenter-linear", "corrected-cells", 1),
]


def made(decoder: str = "setr-naive", head: str = "conv", prefix: int = 1) -> DoViT:
    return randomised(small_config(decoder, prefix, head, image_size=SIZE))


def some_thresholds(model: DoViT, images: torch.Tensor, capacities: Sequence[int] | None) -> list[tuple[float, ...]]:
    """ξ that stop nothing, everything at once, everything at the second decision, and some, far from any confidence."""
    given = None if capacities is None else list(capacities)
    spread = [spreading_thresholds(model, images, keep, given) for keep in ((0.7, 0.7), (0.4, 0.5), (0.8, 0.2))]
    return [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), *spread]


def same(
    found: ChainResult, model: DoViT, images: torch.Tensor, xi: Sequence[float], capacities: Sequence[int]
) -> None:
    """Identical kept sets, and labels, of whichever size, as good as identical."""
    exact = len(capacities) == model.config.tokens + 1
    expected = model(images, xi, None if exact else capacities)
    [decisions] = expected.decisions
    assert [d.keep.shape[1] for d in found.decisions] == [d.kept.shape[1] for d in decisions]
    for one, other in zip(found.decisions, decisions, strict=True):
        assert np.array_equal(np.take_along_axis(one.index, one.keep, axis=1), other.kept.numpy())
        np.testing.assert_allclose(one.confidence, other.confidence.numpy(), rtol=1e-3, atol=1e-5)
    wide = F.interpolate(expected.logits, size=found.labels.shape[1:], mode="bilinear")
    assert (found.labels == wide.argmax(dim=1).numpy()).mean() >= 0.999


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("decoder", "head", "prefix"), KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_identical_kept_sets(
    mode: str, decoder: str, head: str, prefix: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ξ on one capture, in both orders: no pass reads what another left in memory, and another ξ needs no new graph."""
    model = made(decoder, head, prefix)
    chain = torch_chain(model, CAPACITIES, batch=batch, graph=MODES[mode])

    def refuse(self: object) -> None:
        raise AssertionError("captured anew")

    monkeypatch.setattr(type(chain._device), "create_graph_builder", refuse)
    images = random_images(model.config, batch)
    several = some_thresholds(model, images, CAPACITIES)
    for xi in [*several, *several[::-1]]:
        same(chain.run(images.numpy(), xi, CAPACITIES), model, images, xi, CAPACITIES)


@pytest.mark.parametrize(("decoder", "head", "prefix"), KINDS[:3])
def test_the_exact_schedule(decoder: str, head: str, prefix: int) -> None:
    model = made(decoder, head, prefix)
    chain = torch_chain(model, CAPACITIES)
    images = random_images(model.config)
    for xi in some_thresholds(model, images, None):
        same(chain.run(images.numpy(), xi, EVERY), model, images, xi, EVERY)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [1, 2])
def test_images_of_other_sizes(mode: str, batch: int) -> None:
    """The stem finds Pillow's bytes, the pass is that of the resized image, and the labels have the image's own size."""
    model = made()
    chain = torch_chain(model, CAPACITIES, batch=batch, graph=MODES[mode])
    program, device = chain._loaded, chain._device
    for size in ((150, 400), (64, 64), (128, 300), SIZE, (1080, 1920)):
        images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
        resized = np.stack([resize_image(image, SIZE) for image in images])
        found = chain.run(images, (1.0, 1.0), CAPACITIES)
        host, stream = device.pinned(resized.size), device.create_stream()
        device.copy(address(host), program.address("image"), resized.size, stream_address(stream))
        stream.sync()
        assert np.array_equal(host, resized.reshape(-1))
        assert found.labels.shape == (batch, *size)
        same(found, model, torch.from_numpy(resized), (1.0, 1.0), CAPACITIES)


def test_given_counts() -> None:
    """The least confident tokens, as many as asked for."""
    model = made()
    chain = torch_chain(model, CAPACITIES)
    images = random_images(model.config)
    for counts in ((128, 128), (77, 13), (1, 1), (64, 0), (0, 0)):
        found = chain.run(images.numpy(), (0.5, 0.5), CAPACITIES, counts=counts)
        assert [d.keep.shape[1] for d in found.decisions] == list(counts[: 1 if counts[0] == 0 else 2])
        for decision in found.decisions:
            order = np.sort(np.argsort(decision.confidence[0], kind="stable")[: decision.keep.shape[1]])
            assert np.array_equal(order, decision.keep[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_labels_of_a_trained_model_in_half_precision(mode: str, precision: Precision) -> None:
    """On its own kind of street. bfloat16 has 8 bits, so it is only asked for most labels."""
    model = load_model(ASSETS / "streets-tiny.safetensors", ReadOptions()).model
    pixels = resize_image(read_image(ASSETS / "street.png"), model.config.image_size)[None]
    chain = torch_chain(model, default_capacities(model.config.tokens), precision, graph=MODES[mode])
    xi = model.config.thresholds
    found = chain.run(pixels, xi, chain.manifest.capacities)
    expected = model(torch.from_numpy(pixels.copy()), xi, chain.manifest.capacities)
    labels = model.resize_logits(expected.logits).argmax(dim=1).numpy()
    assert (found.labels == labels).mean() >= {"fp16": 0.999, "bf16": 0.99}[precision]


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_keeps_the_order(mode: str) -> None:
    model = made()
    chain = torch_chain(model, CAPACITIES, graph=MODES[mode])
    images = [random_images(model.config, 1, seed) for seed in range(7)]
    xi = spreading_thresholds(model, torch.cat(images), (0.6, 0.5))
    found = list(chain.stream([image.numpy() for image in images], xi))
    assert len(found) == 7
    for result, image in zip(found, images, strict=True):
        alone = chain.run(image.numpy(), xi, CAPACITIES)
        assert np.array_equal(result.labels, alone.labels)
        for one, other in zip(result.decisions, alone.decisions, strict=True):
            assert np.array_equal(one.keep, other.keep) and np.array_equal(one.index, other.index)
    assert len({result.labels.tobytes() for result in found}) == 7, "the images were to differ"


@pytest.mark.parametrize("default", [0, 1, 2, 7])
def test_a_switch_begins_at_its_default(default: int) -> None:
    """Out of range, no body runs; launched twice, for the default is set at every launch."""
    device = CudaDevice()
    if not device.can_switch:
        pytest.skip(f"{device.name}: the driver is older than CUDA 12.8")
    place = device.allocate(2)
    builder = device.create_graph_builder()
    with building(builder):
        bodies = builder.switch(builder.create_condition(default_value=default), 2)
        for number, body in enumerate(bodies):
            with building(body) as stream:
                device.clear(place + number, 1, stream)
    graph = builder.complete()
    for _ in range(2):
        stream, host = device.create_stream(), device.pinned(2)
        host[:] = 9
        device.copy(place, address(host), 2, stream_address(stream))
        graph.launch(stream)
        device.copy(address(host), place, 2, stream_address(stream))
        stream.sync()
        assert host.tolist() == [0 if number == default else 9 for number in range(2)]


def test_other_work_of_torch_does_not_reach_the_graph() -> None:
    """The blocks' memory is reserved for them: torch's other allocations do not use it."""
    model = made()
    chain = torch_chain(model, CAPACITIES)
    images = random_images(model.config)
    xi = some_thresholds(model, images, CAPACITIES)[-1]
    before = chain.run(images.numpy(), xi, CAPACITIES)
    for size in [1 << k for k in range(8, 28)]:
        torch.full((size,), float("nan"), device="cuda").mul_(2)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    after = chain.run(images.numpy(), xi, CAPACITIES)
    assert np.array_equal(before.labels, after.labels)
    same(after, model, images, xi, CAPACITIES)


@pytest.mark.parametrize("exact", [False, True])
def test_a_profile(exact: bool) -> None:
    model = made()
    chain = torch_chain(model, CAPACITIES)
    images = random_images(model.config)
    xi = some_thresholds(model, images, CAPACITIES)[-1]
    found = chain.profile(images.numpy(), xi, 5, exact=exact)
    assert [o.name for o in found.operations] == ["copy in", *(s.name for s in chain.plans.steps), "copy out"]
    assert all(0 < o.us < 1e5 for o in found.operations) and (found.launch_us is None) == exact


def test_the_host_is_done_before_the_gpu(record_property: pytest.RecordProperty) -> None:
    """One launch an image, so the host's part ends long before the GPU's; how long it takes is reported."""
    model = randomised(small_config(image_size=(512, 1024), embed_dim=384, depth=12, layers=(3, 6)))
    chain = torch_chain(model, default_capacities(model.config.tokens))
    images = random_images(model.config).numpy()
    mode = chain._mode
    host, whole = [], []
    for number in range(25):
        mode.write(images, (1.0, 1.0))
        start = time.perf_counter()
        mode.queue()
        queued = time.perf_counter()
        mode.stream.sync()
        if number >= 5:
            host.append((queued - start) * 1e6)
            whole.append((time.perf_counter() - start) * 1e6)
    record_property("host_us", round(statistics.median(host), 1))
    record_property("pass_us", round(statistics.median(whole), 1))
    print(f"host {statistics.median(host):.1f} µs of a pass of {statistics.median(whole):.1f} µs")
    assert statistics.median(host) < statistics.median(whole) / 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("mode", MODES)
def test_tensorrt_rtx(precision: Precision, mode: str, tmp_path: Path) -> None:
    """The plans themselves, where TensorRT-RTX is there and takes this GPU."""
    skip_unless_rtx_runs()
    require("onnx_graphsurgeon")
    from bundles import make_bundle

    from dovit.engines.add import Added, plan_builder
    from dovit.engines.options import BuildOptions
    from dovit.export.run import add_plans
    from dovit.runtime.loading import load

    model = made()
    make_bundle(model, tmp_path, CAPACITIES)
    add_plans(tmp_path, tmp_path, plan_builder(BuildOptions("tensorrt-rtx", precision, cache=None), None, Added()))

    chain = load(tmp_path, "tensorrt-rtx", precision=precision, graph=MODES[mode]).chain
    assert isinstance(chain, GpuChain)
    images = random_images(model.config)
    for xi in some_thresholds(model, images, CAPACITIES):
        found = chain.run(images.numpy(), xi, CAPACITIES)
        if precision == "fp32":
            same(found, model, images, xi, CAPACITIES)
        else:  # a random model's labels are close calls: its trained sister's are asked for 99.9 % above
            expected = model(images, xi, CAPACITIES)
            labels = model.resize_logits(expected.logits).argmax(dim=1).numpy()
            assert (found.labels == labels).mean() >= 0.95
