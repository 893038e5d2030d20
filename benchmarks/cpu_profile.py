"""Where the time goes under OpenVINO: the chain beside the dense model, operation by operation, by OpenVINO's own profile.

    taskset -c 0,1 python -m dovit.benchmarks.cpu_profile --engine engines/ [--precision fp32] [--keep 0.5,0.35,0.25]

Both run the same noise in turns, and so does a large matrix product, which says what the CPU reaches. Prints JSON: for each kind
of operation and the precision in which it is executed, ms of an image in the chain and in the dense model, the largest difference
first; for each step of the chain that has blocks, its share of the product's rate; and ms of an image in all. Medians over the
rounds.
Without `--keep` every token is kept (ξ = 1).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

from dovit.benchmarks.report import PACKAGES, at_least_one, errors_in_a_sentence, machine_and_versions
from dovit.export.graph.dense import dense_bundle
from dovit.runtime.arguments import check_keep
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.chain import Chain
from dovit.runtime.cli.values import parse_shares
from dovit.runtime.openvino.device import CpuPrecision, check_precision, computes_bf16, core, options_for
from dovit.runtime.openvino.engine import OpenVinoEngine

PRODUCT = 4096  # rows, columns and depth
WARM_UP = 2
Operation = tuple[str, str]  # its kind, and the precision in which it is executed


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--precision", choices=get_args(CpuPrecision), help="default: bf16 where the CPU has it")
    parser.add_argument("--keep", help="shares of the tokens, as 0.5,0.35,0.25")
    parser.add_argument("--rounds", type=at_least_one, default=20)
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    precision: CpuPrecision = given.precision or ("bf16" if computes_bf16() else "fp32")
    with errors_in_a_sentence(parser):
        keep = parse_shares(given.keep, "--keep")
        report = measure(open_bundle(given.engine), precision, given.threads, keep, given.rounds)
    print(json.dumps({"engine": str(given.engine)} | report, indent=1))


def measure(
    bundle: Bundle, precision: CpuPrecision, threads: int, keep: tuple[float, ...] | None, rounds: int
) -> dict[str, Any]:
    """The report."""
    check_precision(precision)
    core().set_property("CPU", {"PERF_COUNT": True})
    with TemporaryDirectory(prefix="dovit-profile-") as folder:
        dense = _engines(dense_bundle(bundle, Path(folder)), threads, precision)
    chain = _engines(bundle, threads, precision)
    manifest = bundle.manifest
    image = np.random.default_rng(0).integers(0, 256, (1, *manifest.image_size, 3), dtype=np.uint8)
    shares = keep or (1.0,) * len(manifest.decisions)
    counts = [max(1, count) for count in check_keep(manifest, shares)]  # without tokens a step would not run
    capacities, steps = range(manifest.tokens + 1), Chain(manifest, chain)
    product = _product(threads, precision)
    runs: dict[str, Callable[[], object]] = {
        "chain": lambda: steps.run(image, manifest.thresholds, capacities, counts=counts),
        "dense": lambda: dense[0].run({"image": image}, {"labels": None}),
        "product": product.infer,
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    operations: dict[str, list[Counter[Operation]]] = {"chain": [], "dense": []}
    by_step: list[list[float]] = []  # [round][step], ms
    rates: list[float] = []  # GMACs a second
    order, shuffle = list(runs), random.Random(0).shuffle
    for number in range(WARM_UP + rounds):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            runs[name]()
            if number >= WARM_UP:
                wall[name].append(1e3 * (time.perf_counter() - start))
        if number < WARM_UP:
            continue
        parts = [_operations(engine) for engine in chain]
        operations["chain"].append(sum(parts, Counter()))
        operations["dense"].append(_operations(dense[0]))
        by_step.append([part.total() for part in parts])
        [seconds] = [
            n.real_time.total_seconds() for n in product.get_profiling_info() if n.node_type == "FullyConnected"
        ]
        rates.append(PRODUCT**3 / 1e9 / seconds)
    rate = statistics.median(rates)
    tokens = [manifest.tokens, *counts]  # of the steps with blocks; the decoder has none
    rows = [
        {
            "step": step.name,
            "gmacs_true": step.macs.true(manifest.prefix + count) / 1e9,
            "ms": (ms := statistics.median(times)),
            "of_product": step.macs.true(manifest.prefix + count) / 1e6 / ms / rate,
        }
        for step, count, times in zip(manifest.steps, tokens, zip(*by_step, strict=True), strict=False)
    ]
    medians = {name: _medians(found) for name, found in operations.items()}
    kinds = [
        {"operation": kind, "precision": executed, "chain_ms": of[0], "dense_ms": of[1], "more_ms": of[0] - of[1]}
        for kind, executed in set(medians["chain"]) | set(medians["dense"])
        for of in [[medians[name].get((kind, executed), 0.0) for name in ("chain", "dense")]]
    ]
    return {
        "precision": precision,
        "threads": threads,
        "rounds": rounds,
        "kept": counts,
        **machine_and_versions(PACKAGES),
        "product_gmacs_per_s": rate,
        "wall_ms": {name: statistics.median(wall[name]) for name in operations},
        "operations_ms": {name: statistics.median(one.total() for one in operations[name]) for name in operations},
        "steps": rows,
        "operations": sorted(kinds, key=lambda row: -abs(row["more_ms"])),
    }


def _engines(bundle: Bundle, threads: int, precision: CpuPrecision) -> list[OpenVinoEngine]:
    """One a step, compiled with profiling."""
    return [
        OpenVinoEngine(step.name, [bundle.path(name) for name in step.openvino], threads=threads, precision=precision)
        for step in bundle.manifest.steps
    ]


def _product(threads: int, precision: CpuPrecision) -> Any:
    """A request that multiplies a large matrix by a large constant one, as a layer does."""
    import openvino
    from openvino import opset13 as ops

    given = ops.parameter([PRODUCT, PRODUCT], np.float32)
    weights = ops.constant(np.random.default_rng(0).standard_normal((PRODUCT, PRODUCT), np.float32))
    model = openvino.Model([ops.matmul(given, weights, False, False)], [given])
    request = core().compile_model(model, "CPU", options_for(threads, precision)).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ones((PRODUCT, PRODUCT), np.float32)))
    return request


def _operations(engine: OpenVinoEngine) -> Counter[Operation]:
    """Milliseconds of its last call."""
    requests = engine.idle.get_nowait()
    found: Counter[Operation] = Counter()
    for node in (node for request in requests for node in request.get_profiling_info()):
        found[node.node_type, node.exec_type.rpartition("_")[2]] += 1e3 * node.real_time.total_seconds()
    engine.idle.put(requests)
    return found


def _medians(rounds: list[Counter[Operation]]) -> dict[Operation, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in set().union(*rounds)}


if __name__ == "__main__":
    main()
