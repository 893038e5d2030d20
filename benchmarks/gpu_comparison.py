"""Times the modes of the chain against the dense model, interleaved in one run, for any backend."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dovit.benchmarks.gpu_rows import Candidate, counts_for, filling_thresholds, row
from dovit.benchmarks.measure import interleaved
from dovit.runtime.chain import ChainResult
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.chain import GpuChain

RATIOS = ((1.0, 1.0, 1.0), (0.5, 0.35, 0.25), (0.2, 0.15, 0.1))
DENSE = "dense, one graph"
THROUGHPUT_ROUNDS, PROFILE_ROUNDS = 3, 20
# further candidates of a setting, or, without counts, its dense ones
Others = Callable[[str, tuple[int, ...] | None], list[Candidate]]


@dataclass(frozen=True)
class Chains:
    """The same model as one graph and as a graph a segment, and without decisions."""

    graph: GpuChain
    segmented: GpuChain
    dense: GpuChain


def compare(
    chains: Chains, image: np.ndarray, rounds: int, images: int, *, own: bool, others: Others | None = None
) -> dict[str, Any]:
    """Rows of all candidates on `image` [1, H, W, 3], the first of them the baseline. `images`: how many a throughput is
    measured on; `own`: also with the manifest's ξ."""
    chain, manifest = chains.graph, chains.graph.manifest
    field = _dense(chains.dense, image)
    field += others("dense", None) if others else []
    thresholds: dict[str, tuple[float, ...]] = {}
    for ratio in RATIOS:
        shares = ratio[: len(manifest.decisions)]
        counts = counts_for(shares, manifest.tokens, manifest.capacities)
        setting = f"keep {'/'.join(f'{s:g}' for s in shares)}"
        thresholds[setting] = xi = _thresholds(chain, image, setting, counts)
        field += _setting(chains, image, setting, counts, xi, others)
    if own:
        result = chain.run(image, manifest.thresholds, manifest.capacities, logits=False)
        field += _setting(chains, image, "the model's ξ", _kept(result), manifest.thresholds, others)
    names = [f"{one.name}, {one.setting}" for one in field]
    seconds = interleaved({name: one.run for name, one in zip(names, field, strict=True)}, rounds)
    overlapped = interleaved(
        {name: partial(one.many, images) for name, one in zip(names, field, strict=True)}, THROUGHPUT_ROUNDS, 1
    )
    rows = [
        row(one, seconds[name], [s / images for s in overlapped[name]], field[0], seconds[names[0]])
        for name, one in zip(names, field, strict=True)
    ]
    return {
        "architecture": manifest.architecture,
        "image_size": list(manifest.image_size),
        "tokens": manifest.tokens,
        "precision": chain.plans.precision,
        "capacities": list(manifest.capacities),
        "baseline": names[0],
        "rounds": rounds,
        "throughput_images": images,
        "host_us": _host_us(chain, image, rounds),
        "rows": rows,
        "profiles": {name: chain.profile(image, xi, PROFILE_ROUNDS).as_dict() for name, xi in thresholds.items()},
    }


def _dense(chain: GpuChain, image: np.ndarray) -> list[Candidate]:
    manifest = chain.manifest
    run, many = _runs(chain, image, ())
    return [Candidate(DENSE, "dense", (), manifest.dense_macs[1], run, many)]


def _thresholds(chain: GpuChain, image: np.ndarray, setting: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    """ξ by which the graph keeps `counts`."""
    capacities = chain.manifest.capacities
    xi = filling_thresholds(_given(chain, image, counts)().decisions, counts, capacities)
    kept = _kept(chain.run(image, xi, capacities, logits=False))
    if kept != counts:
        raise DovitError(
            f"{setting}: ξ was to keep {'/'.join(map(str, counts))} tokens and keeps {'/'.join(map(str, kept))}: too many "
            "confidences of this image are equal; give another --image"
        )
    return xi


def _given(chain: GpuChain, image: np.ndarray, counts: tuple[int, ...]) -> Callable[[], ChainResult]:
    """A pass with given kept counts, with every operation queued by the host."""
    return lambda: chain.run(image, [0.0] * len(counts), chain.manifest.capacities, counts=counts, logits=False)


def _setting(
    chains: Chains,
    image: np.ndarray,
    setting: str,
    counts: tuple[int, ...],
    xi: tuple[float, ...],
    others: Others | None,
) -> list[Candidate]:
    """All candidates that keep `counts`, the graph and the segments by `xi`."""
    chain, manifest = chains.graph, chains.graph.manifest
    macs = manifest.macs(counts)[1]
    graph, segmented = (_runs(one, image, xi) for one in (chains.graph, chains.segmented))
    field = [
        Candidate("chain, one graph", setting, counts, macs, *graph),
        Candidate("chain, a graph a segment", setting, counts, macs, *segmented),
    ]
    if counts and len(counts) == len(manifest.decisions):
        exact = _given(chain, image, counts)
        field.append(Candidate("chain, no graph", setting, counts, macs, exact, _repeated(exact)))
    return field + (others(setting, counts) if others else [])


def _runs(
    chain: GpuChain, image: np.ndarray, xi: Sequence[float]
) -> tuple[Callable[[], object], Callable[[int], object]]:
    def run() -> object:
        return chain.run(image, xi, chain.manifest.capacities, logits=False)

    def many(count: int) -> object:
        return [None for _ in chain.stream([image] * count, xi)]

    return run, many


def _repeated(run: Callable[[], object]) -> Callable[[int], object]:
    return lambda count: [run() for _ in range(count)]


def _kept(result: ChainResult) -> tuple[int, ...]:
    return tuple(decision.keep.shape[1] for decision in result.decisions)


def _host_us(chain: GpuChain, image: np.ndarray, rounds: int) -> dict[str, float]:
    """What the host does for an image in the captured mode, medians: filling pinned memory, and the launch."""
    written, queued = [], []
    captured = chain.captured
    for _ in range(rounds):
        start = time.perf_counter()
        captured.write(image, chain.manifest.thresholds)
        middle = time.perf_counter()
        captured.queue()
        queued.append((time.perf_counter() - middle) * 1e6)
        written.append((middle - start) * 1e6)
        captured.stream.sync()
    return {"write": statistics.median(written), "launch": statistics.median(queued)}
