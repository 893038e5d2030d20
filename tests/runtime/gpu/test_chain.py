"""The interface between a session and a chain on a GPU: schedules, streams, threads, batches."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fake_gpu import (
    EmulatedKernels,
    FakeDevice,
)
from lowered import CAPACITIES, Maker, same, some_thresholds
from models import BACKBONES, random_images

from dovit.runtime.errors import DovitError, UsageError

CHAIN_KINDS = [("setr-naive", "conv", 1), ("setr-mla", "fcn", 2), ("segmenter-linear-taps", "lens", 1)]
CHAIN_KINDS += [
    ("segmenter-linear", "neighbours", 1),
    ("segmenter-linear", "lens-unmerged", 2),
    ("setr-pup", "corrected-unmerged", 1),
]
CHAIN_KINDS += [("setr-mla", "fcn-cells", 2), ("segmenter-linear", "corrected-cells", 0)]


@pytest.mark.parametrize(("decoder", "head", "prefix"), CHAIN_KINDS)
def test_with_the_kernels_themselves(
    make: Maker, emulated_library: ctypes.CDLL, decoder: str, head: str, prefix: int
) -> None:
    """The whole image as one graph of the real launchers, on emulated threads: decide sets the switches by itself."""
    made = make(decoder, head, prefix, 2)
    device = FakeDevice()
    kernels = EmulatedKernels(device, emulated_library)
    chain = made.chain_over(made.engines_on(device), kernels, device)
    images = random_images(made.model.config, 2).numpy()
    for xi in some_thresholds(made, images)[2:6]:
        same(chain.run(images, xi, CAPACITIES), made.chain.run(images, xi, CAPACITIES))
    same(chain.run(images, xi, range(25)), made.chain.run(images, xi, range(25)))


@pytest.mark.parametrize(("decoder", "head", "prefix"), CHAIN_KINDS)
def test_schedules_and_counts(make: Maker, decoder: str, head: str, prefix: int) -> None:
    """Bucketed, exact, and given numbers of tokens, in turns."""
    made = make(decoder, head, prefix)
    chain = made.gpu_chain()
    every = range(made.manifest.tokens + 1)
    images = random_images(made.model.config).numpy()
    for xi in some_thresholds(made, images):
        for counts in (None, (13, 6), (24, 0), (0, 0), (24, 24)):  # the last would do for any decision after it
            for capacities in (CAPACITIES, every):
                same(
                    chain.run(images, xi, capacities, counts=counts),
                    made.chain.run(images, xi, capacities, counts=counts),
                )


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("family", BACKBONES)
def test_other_backbones(make: Maker, family: str, graph: bool) -> None:
    """Registers, SwiGLU, rotary positions, whose plans read the tokens' index beside the tokens; taps for a linear head."""
    made = make("segmenter-linear-taps", "fcn", 1, 1, family)
    chain = made.gpu_chain(graph=graph)
    images = random_images(made.model.config).numpy()
    for xi in some_thresholds(made, images):
        for capacities in (CAPACITIES, range(made.manifest.tokens + 1)):
            same(chain.run(images, xi, capacities), made.chain.run(images, xi, capacities))


@pytest.mark.parametrize("can_switch", [True, False])
def test_a_stream_keeps_the_order(make: Maker, can_switch: bool) -> None:
    made = make()
    chain = made.gpu_chain(FakeDevice(can_switch=can_switch))
    images = [random_images(made.model.config, 1, seed).numpy() for seed in range(5)]
    xi = some_thresholds(made, images[0])[-1]
    for count in (0, 1, 2, 5):
        found = list(chain.stream(images[:count], xi))
        assert len(found) == count
        for result, image in zip(found, images, strict=False):
            same(result, made.chain.run(image, xi, CAPACITIES))


def test_a_pass_within_a_stream_is_refused_and_one_after_it_is_not(make: Maker) -> None:
    made = make()
    chain = made.gpu_chain()
    image = random_images(made.model.config).numpy()
    results = chain.stream([image, image], (0.5, 0.5))
    next(results)
    with pytest.raises(UsageError, match="a stream of this session is under way"):
        chain.run(image, (0.5, 0.5), CAPACITIES)
    results.close()
    same(chain.run(image, (0.5, 0.5), CAPACITIES), made.chain.run(image, (0.5, 0.5), CAPACITIES))


def test_a_stream_goes_on_in_another_thread(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that an event loop or a prefetcher takes results from. CUDA's context is current for one thread."""
    made = make()
    device = FakeDevice()
    chain = made.gpu_chain(device)
    images = [random_images(made.model.config, 1, seed).numpy() for seed in range(5)]
    current: list[int] = []
    monkeypatch.setattr(FakeDevice, "make_current", lambda self: current.append(threading.get_ident()))
    write = chain._write

    def checked(*given: Any) -> None:
        assert current[-1] == threading.get_ident()
        write(*given)

    monkeypatch.setattr(chain, "_write", checked)
    results = chain.stream(images, (0.6, 0.5))
    found = []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for number in range(4):
            found.append((one, other)[number % 2].submit(next, results).result(60))
        waiting = one.submit(chain.run, images[0], (0.6, 0.5), CAPACITIES)  # waits for the stream's end
        with pytest.raises(UsageError, match="a stream of this session is under way"):
            other.submit(chain.run, images[0], (0.6, 0.5), CAPACITIES).result(60)
        found += results
        found.append(waiting.result(60))
    for result, image in zip(found, [*images, images[0]], strict=True):
        same(result, made.chain.run(image, (0.6, 0.5), CAPACITIES))


def test_threads_share_a_chain(make: Maker) -> None:
    made = make()
    chain = made.gpu_chain()
    images = [random_images(made.model.config, 1, seed).numpy() for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: chain.run(image, (0.6, 0.5), CAPACITIES), images))
    for result, image in zip(found, images, strict=True):
        same(result, made.chain.run(image, (0.6, 0.5), CAPACITIES))


def test_another_batch_is_refused(make: Maker) -> None:
    made = make()
    chain = made.gpu_chain()
    with pytest.raises(DovitError, match="take 1 images at a time, not 2"):
        chain.run(random_images(made.model.config, 2).numpy(), (0.5, 0.5), CAPACITIES)
