"""Different images one after another on a CPU: the three schedules, batches, and several images at a time.

    taskset -c 0,1 python -m dovit.benchmarks.cpu_streams --engine engines/ --rounds 6 [--keep 0.5,0.35,0.25]

Every round runs the same few images in each way, in an order that changes, and no round has the images of another, so that
token counts are as new as in a real stream. Images are drawn scenes, on which the bundle's ξ decides how many tokens stay. With
`--keep` each image keeps these shares times a number drawn from 0.6 to 1.4 instead, for models with random weights. Uses the
cores that the process may use: choose them with taskset. Prints JSON: medians over the rounds, and of paired ratios to the
first row.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dovit.benchmarks.measure import paired_ratio
from dovit.benchmarks.report import at_least_one, errors_in_a_sentence
from dovit.runtime.arguments import check_keep
from dovit.runtime.bundle.manifest import Manifest, Schedule
from dovit.runtime.chain import ChainResult
from dovit.runtime.cli.values import parse_shares
from dovit.runtime.loading import load
from dovit.runtime.openvino.device import CpuPrecision
from dovit.runtime.providers import Provider
from dovit.runtime.session import Session
from dovit.scenes import scene

BATCHES = (2, 4, 8)
IMAGES = 8  # of a round
FIRST_SCENE = 5_000_000  # apart from those that models are trained and evaluated on


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--provider", choices=("cpu", "openvino"), default="openvino")
    parser.add_argument("--precision", choices=get_args(CpuPrecision), default="fp32")
    parser.add_argument("--rounds", type=at_least_one, default=6)
    parser.add_argument("--keep", help="shares of the tokens, as 0.5,0.35,0.25")
    given = parser.parse_args()
    with errors_in_a_sentence(parser):
        keep = parse_shares(given.keep, "--keep")
        report = measure(given.engine, given.provider, given.precision, given.rounds, keep)
    print(json.dumps(report, indent=1))


def measure(
    engine: Path, provider: Provider, precision: CpuPrecision, rounds: int, keep: Sequence[float] | None
) -> dict[str, Any]:
    """The report: a row for each way to run the images, the first being one at a time on all cores, exact."""
    cores = len(os.sched_getaffinity(0))
    options: dict[str, Any] = {"provider": provider, "precision": precision, "check_accuracy": False}
    session = load(engine, threads=cores, **options)
    stream = _Stream(session.manifest, keep)
    ways: dict[str, Callable[[list[int]], object]] = {
        "one at a time, exact": lambda images: [stream.run(session, [n], "exact") for n in images],
        "one at a time, rounded": lambda images: [stream.run(session, [n], "rounded") for n in images],
        "one at a time, bucketed": lambda images: [stream.run(session, [n], "bucketed") for n in images],
    }
    for size in BATCHES:
        ways[f"batches of {size}, bucketed"] = (
            lambda images, size=size: [  # type: ignore[misc]
                stream.run(session, images[first : first + size], "bucketed") for first in range(0, len(images), size)
            ]
        )
    pool = None
    if cores > 1:  # an image a core
        single = load(engine, threads=1, **options)
        pool = ThreadPoolExecutor(cores)
        schedules: tuple[Schedule, ...] = ("exact", "bucketed")
        for schedule in schedules:
            ways[f"{cores} at a time, one core each, {schedule}"] = lambda images, schedule=schedule: list(  # type: ignore[misc]
                pool.map(lambda n: stream.run(single, [n], schedule), images)
            )
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(0).shuffle
    for number in range(1 + rounds):  # the first is not counted
        images = [number * IMAGES + k for k in range(IMAGES)]
        stream.draw(images)
        shuffle(order)
        for name in order:
            before, start = time.process_time(), time.perf_counter()
            ways[name](images)
            if number:
                wall[name].append((time.perf_counter() - start) / IMAGES)
                cpu[name].append((time.process_time() - before) / IMAGES)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    if pool is not None:
        pool.shutdown()
    first = next(iter(ways))
    rows = [
        {
            "name": name,
            "images_per_s": 1 / statistics.median(wall[name]),
            "cpu_ms_an_image": statistics.median(cpu[name]) * 1e3,
            "images_over_first": paired_ratio(wall[first], wall[name]),
            "cpu_over_first": paired_ratio(cpu[name], cpu[first]),
        }
        for name in ways
    ]
    return {
        "engine": str(engine),
        "provider": session.provider,
        "precision": session.precision,
        "cores": cores,
        "rounds": rounds,
        "kept": stream.kept(),
        "load_average": os.getloadavg(),
        "rows": rows,
    }


class _Stream:
    """Images by number, and how each is run."""

    def __init__(self, manifest: Manifest, keep: Sequence[float] | None) -> None:
        self._manifest, self._keep = manifest, keep
        self._images: dict[int, np.ndarray] = {}  # [H, W, 3]
        self._counts: dict[int, tuple[int, ...]] = {}
        self._kept: list[list[int]] = []

    def draw(self, numbers: Sequence[int]) -> None:
        """Make these images; earlier ones are forgotten."""
        height, width = self._manifest.image_size
        self._images = {n: scene(FIRST_SCENE + n, height, width)[0] for n in numbers}
        if self._keep is not None:
            factors = {n: random.Random(n).uniform(0.6, 1.4) for n in numbers}
            self._counts = {
                n: check_keep(self._manifest, [min(1.0, share * f) for share in self._keep]) for n, f in factors.items()
            }

    def run(self, session: Session, numbers: Sequence[int], schedule: Schedule) -> ChainResult:
        """One pass over a batch of the images."""
        manifest = self._manifest
        batch = np.stack([self._images[n] for n in numbers])
        capacities = session.capacities(schedule)
        counts = None
        if self._keep is not None:
            most = np.max([self._counts[n] for n in numbers], axis=0)
            counts = [min(c for c in capacities if c >= count) for count in most]
        made = session.chain.run(batch, manifest.thresholds, capacities, counts=counts)
        if schedule == "exact" and len(numbers) == 1:
            self._kept.append([decision.keep.shape[1] for decision in made.decisions])
        return made

    def kept(self) -> dict[str, list[float]]:
        """Least, median and most tokens kept after each decision, where each image keeps what it needs."""
        kept = np.array([one for one in self._kept if len(one) == len(self._manifest.decisions)])
        return {
            name: of(kept, axis=0).tolist() for name, of in (("least", np.min), ("median", np.median), ("most", np.max))
        }


if __name__ == "__main__":
    main()
