"""From which size on OpenVINO is faster than ONNX Runtime's own kernels on a CPU, both in float32.

    taskset -c 0,1 python -m dovit.benchmarks.cpu_providers --models vit-t:224x224,vit-s:512x512 [--engine engines/] [--rounds 8]

SETR-Naive with random weights, exported for the purpose, and bundles that are given with `--engine`. Both run the same image in
turns, a new one in every round, in two settings: every token kept, and 0.5/0.35/0.25 times a number drawn from 0.6 to 1.4, since
token counts that OpenVINO has not seen cost it time. Prints JSON: medians of ms and CPU ms of an image, and of paired ratios. The
limit that the provider `auto` has (runtime/openvino/speed.py) comes from this.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dovit.benchmarks.gpu_models import MODELS as SIZES
from dovit.benchmarks.gpu_models import random_model
from dovit.benchmarks.measure import paired_ratio
from dovit.benchmarks.report import PACKAGES, at_least_one, errors_in_a_sentence, machine_and_versions
from dovit.export.checkpoints import save_model
from dovit.export.run import export
from dovit.runtime.arguments import check_keep
from dovit.runtime.errors import UsageError
from dovit.runtime.loading import load
from dovit.runtime.openvino.device import CpuProvider
from dovit.runtime.session import Session
from dovit.scenes import scene

KEEP = (0.5, 0.35, 0.25)
MODELS = "vit-t:224x224,vit-s:224x224,vit-t:384x384,vit-b:224x224,vit-s:512x512,vit-b:512x512"
FIRST_SCENE = 5_001_000  # apart from those that models are trained and evaluated on


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=MODELS, help=f"NAME:HxW,… of random weights. Default: {MODELS}")
    parser.add_argument("--engine", type=Path, action="append", default=[], help="a bundle, as often as wanted")
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=at_least_one, default=8)
    given = parser.parse_args()
    report: dict[str, Any] = {"threads": given.threads, "rounds": given.rounds}
    report |= machine_and_versions(PACKAGES) | {"rows": []}
    with errors_in_a_sentence(parser):
        models = [parse_model(text) for text in given.models.split(",") if text]
        for engine in given.engine:
            report["rows"] += measure(str(engine), engine, given.threads, given.rounds)
        for name, height, width in models:
            with TemporaryDirectory(prefix="dovit-providers-") as folder:
                checkpoint = Path(folder) / "model.safetensors"
                save_model(random_model(name, (height, width)), checkpoint)
                export(checkpoint, Path(folder) / "engines", {}, None, None, check=False)
                report["rows"] += measure(
                    f"{name}:{height}x{width}", Path(folder) / "engines", given.threads, given.rounds
                )
    print(json.dumps(report, indent=1))


def parse_model(text: str) -> tuple[str, int, int]:
    """Name, height and width of one of `--models`. Raises UsageError."""
    found = re.fullmatch("([^:]+):([0-9]{1,5})x([0-9]{1,5})", text)
    height, width = (int(found[2]), int(found[3])) if found else (0, 0)
    if not found or found[1] not in SIZES or not height or not width or height % 16 or width % 16:
        raise UsageError(
            f"--models {text}: give NAME:HEIGHTxWIDTH, a name of {', '.join(SIZES)} and multiples of the patch size 16"
        )
    return found[1], height, width


def measure(name: str, engine: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each setting."""
    print(name, file=sys.stderr, flush=True)
    providers: tuple[CpuProvider, ...] = ("cpu", "openvino")
    sessions = {provider: load(engine, provider=provider, threads=threads) for provider in providers}
    manifest = sessions["cpu"].manifest
    rows = []
    for kept, shares in (("all", None), ("0.6 to 1.4 times 0.5/0.35/0.25", KEEP)):
        wall: dict[CpuProvider, list[float]] = {provider: [] for provider in sessions}
        cpu: dict[CpuProvider, list[float]] = {provider: [] for provider in sessions}
        for number in range(1 + rounds):  # the first is not counted
            order = sorted(sessions, reverse=number % 2 == 0)
            for provider in order:
                seconds, cpu_seconds = _run(sessions[provider], number, shares)
                if number:
                    wall[provider].append(seconds)
                    cpu[provider].append(cpu_seconds)
        row: dict[str, Any] = {
            "name": name,
            "gmacs_true": manifest.dense_macs[1] / 1e9,
            "tokens": manifest.tokens,
            "kept": kept,
            "openvino_over_onnxruntime": paired_ratio(wall["openvino"], wall["cpu"]),
            "cpu_openvino_over_onnxruntime": paired_ratio(cpu["openvino"], cpu["cpu"]),
        }
        for provider in providers:
            label = "onnxruntime" if provider == "cpu" else provider
            row[f"{label}_ms"] = statistics.median(wall[provider]) * 1e3
            row[f"{label}_cpu_ms"] = statistics.median(cpu[provider]) * 1e3
        rows.append(row)
    return rows


def _run(session: Session, number: int, shares: tuple[float, ...] | None) -> tuple[float, float]:
    """Seconds, and CPU seconds of all threads, of image `number`."""
    manifest = session.manifest
    image = scene(FIRST_SCENE + number, *manifest.image_size)[0][None]  # [1, H, W, 3]
    factor = random.Random(number).uniform(0.6, 1.4)
    chosen = shares[: len(manifest.decisions)] if shares else (1.0,) * len(manifest.decisions)
    counts = check_keep(manifest, [min(1.0, share * factor) if shares else share for share in chosen])
    before, start = time.process_time(), time.perf_counter()
    session.chain.run(image, manifest.thresholds, range(manifest.tokens + 1), counts=counts)
    return time.perf_counter() - start, time.process_time() - before


if __name__ == "__main__":
    main()
