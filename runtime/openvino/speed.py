"""Whether OpenVINO or ONNX Runtime's own provider is faster for a bundle on this CPU: measured when it is first loaded with the
provider `auto`, and kept (records.py). Only models that are small are measured: larger ones are faster with OpenVINO.

The C++ runtime reads what is kept (runtime/cpp/openvino/speed.cpp), and has the same rule where nothing is kept.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain
from dovit.runtime.openvino.device import CpuPrecision, CpuProvider
from dovit.runtime.openvino.records import (
    can_keep,
    keep_record,
    manifest_hash,
    read_record,
    record_file,
    records_folder,
)
from dovit.scenes import scene

LOG = logging.getLogger("dovit")
# MACs of an image without token pass, the true count, from which on OpenVINO takes less CPU time in every setting
# (docs/results/cpu.md)
LARGE = 30_000_000_000
MEASUREMENT = 1  # a higher number where `measure` changes: what was kept by another is not read
FIRST_SCENE = 3_000_100  # apart from those that models are trained and evaluated on
ROUNDS, FEWEST_ROUNDS, SECONDS = 8, 3, 2.0  # after SECONDS no further round begins, unless it is one of the fewest


class ProviderSpeed(Frozen):
    """CPU time of all threads, in which other programs' work does not count: medians over the rounds in ms, and of the paired
    ratios, OpenVINO's over ONNX Runtime's. `bundle`: where it was, for tables; `manifest`: its SHA-256."""

    bundle: str
    manifest: str
    threads: int = Field(ge=1)
    rounds: int = Field(ge=1)
    onnxruntime_cpu_ms: float = Field(gt=0)
    openvino_cpu_ms: float = Field(gt=0)
    openvino_over_onnxruntime: float = Field(gt=0)

    @property
    def faster(self) -> CpuProvider:
        """The provider that takes less CPU time."""
        return "cpu" if self.openvino_over_onnxruntime > 1 else "openvino"

    def __str__(self) -> str:
        ratio = self.openvino_over_onnxruntime
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"OpenVINO takes {ratio:.2f} times ONNX Runtime's CPU time ({self.openvino_cpu_ms:.1f} ms an image, "
            f"{self.onnxruntime_cpu_ms:.1f} ms; measured with {threads} when it was first loaded)"
        )


def faster_provider(
    bundle: Bundle, threads: int | None, open_chain: Callable[[CpuProvider, CpuPrecision], Chain]
) -> tuple[CpuProvider, str]:
    """The faster provider for `bundle` in float32, and why: from the record, or measured now with the chains that `open_chain`
    opens. Where no record can be kept nothing is measured, since every load would measure again."""
    macs = bundle.manifest.dense_macs[1]
    if macs >= LARGE:
        return "openvino", f"a model of {macs / 1e9:.1f} GMACs, and from {LARGE / 1e9:.0f} on OpenVINO is faster"
    threads = threads or len(os.sched_getaffinity(0))
    manifest = manifest_hash(bundle)
    file = speed_file(manifest, threads)
    found = read_record(file, ProviderSpeed)
    if found is None:
        if not can_keep():
            why = f"{file.parent} cannot be written" if file else "the user has no home (set XDG_CACHE_HOME)"
            return "cpu", (
                f"a model of {macs / 1e9:.1f} GMACs, below {LARGE / 1e9:.0f}; the providers are not compared, as {why}"
            )
        LOG.info(
            "%s: comparing ONNX Runtime's speed with OpenVINO's, once for this bundle, CPU and %d threads",
            bundle.root,
            threads,
        )
        found = keep_record(
            file, measure(bundle, manifest, threads, open_chain("cpu", "fp32"), open_chain("openvino", "fp32"))
        )
    return found.faster, str(found)


def speed_file(manifest: str, threads: int) -> Path | None:
    """Of the bundle whose manifest has this hash; None where nothing is kept."""
    import onnxruntime

    return record_file("speed", MEASUREMENT, manifest, onnxruntime.get_version_string(), threads)


def known_speeds() -> list[ProviderSpeed]:
    """Those that hold here: measured on this CPU with the versions that are installed."""
    here: list[ProviderSpeed] = []
    folder = records_folder()
    for file in folder.glob("speed-*.json") if folder else ():
        one = read_record(file, ProviderSpeed)
        if one is not None and speed_file(one.manifest, one.threads) == file:
            here.append(one)
    return sorted(here, key=lambda one: (one.bundle, one.threads))


def measure(bundle: Bundle, manifest: str, threads: int, cpu: Chain, openvino: Chain) -> ProviderSpeed:
    """Drawn scenes one after another at the bundle's ξ, each run by both in turns: a new image in every round, because token
    counts that OpenVINO has not seen cost it time."""
    height, width = bundle.manifest.image_size
    thresholds, capacities = bundle.manifest.thresholds, range(bundle.manifest.tokens + 1)
    order = [("cpu", cpu), ("openvino", openvino)]
    rounds: list[tuple[float, float]] = []  # CPU seconds of ONNX Runtime and of OpenVINO
    start = time.perf_counter()
    while len(rounds) <= ROUNDS:
        if len(rounds) > FEWEST_ROUNDS and time.perf_counter() - start > SECONDS:
            break
        image = scene(FIRST_SCENE + len(rounds), height, width)[0][None]  # [1, H, W, 3]
        order.reverse()
        seconds = {}
        for name, chain in order:
            before = time.process_time()
            chain.run(image, thresholds, capacities)
            seconds[name] = time.process_time() - before
        rounds.append((seconds["cpu"], seconds["openvino"]))
    del rounds[0]  # in which both allocate memory
    return ProviderSpeed(
        # UTF-8, as the record is: names may be of another encoding, or the locale
        bundle=os.fsencode(bundle.root.resolve()).decode(errors="backslashreplace"),
        manifest=manifest,
        threads=threads,
        rounds=len(rounds),
        onnxruntime_cpu_ms=statistics.median(a for a, _ in rounds) * 1e3,
        openvino_cpu_ms=statistics.median(b for _, b in rounds) * 1e3,
        openvino_over_onnxruntime=statistics.median(b / a for a, b in rounds),
    )
