"""Times the peers in turns: each round runs every one once, in an order that changes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dovit.benchmarks.measure import paired_ratio
from dovit.benchmarks.peers.peer import Peer, Running, chain_peers, dense_peers
from dovit.benchmarks.report import Settings, report_head
from dovit.export.graph.dense import dense_bundle
from dovit.export.source import source_of
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.progress import Progress, no_progress

# A thread pool may wait actively after its last task (ONNX Runtime's for 20 to 25 ms), which must be over before the next
# process is measured.
SETTLE_S = 0.05


def compare_peers(
    engine: Path,
    image: np.ndarray | None,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    int8: Path | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Rows of every peer that can run here, and of every other the reason why it cannot, under `left_out`.

    `image` uint8 [H, W, 3] of the bundle's size, default noise; `checkpoint`: the bundle's, for torch's rows; `int8`: the same
    model's bundle in int8, for rows of the chain. Raises DovitError where no row is left, UsageError where `int8` is another
    model's.
    """
    bundle = open_bundle(engine)
    if int8 is not None:
        _check_int8(bundle, open_bundle(int8))
    if checkpoint is not None:
        _check_source(bundle, checkpoint)
    height, width = bundle.manifest.image_size
    if image is None:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with TemporaryDirectory(prefix="dovit-peers-") as name, ExitStack() as stack:
        folder = Path(name)
        np.save(folder / "image.npy", image)
        (folder / "dense").mkdir()
        dense = dense_bundle(bundle, folder / "dense")
        [step] = dense.manifest.steps
        same = {"image": str(folder / "image.npy"), "threads": settings.threads, "warmup": settings.warmup}
        peers, left_out = dense_peers(dense.onnx(step), checkpoint, **same)
        peers += chain_peers(engine, settings.keep, int8, **same)
        peers = [peer for peer in peers if settings.wants(peer.name)]
        running, facts = _start(peers, bundle.manifest, folder, stack, left_out, progress)
        seconds = _measure(running, settings.runs, facts, left_out, progress)
        labels = {name: np.load(running[name].labels) for name in seconds}
    if not seconds:
        raise DovitError(f"no row could be measured: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    rows = rows_of([peer for peer in peers if peer.name in seconds], seconds, facts, labels, bundle.manifest)
    return report_head(engine, bundle.manifest, settings) | {
        "rows": rows,
        "left_out": {name: why for name, why in left_out.items() if settings.wants(name)},
    }


def _check_int8(bundle: Bundle, int8: Bundle) -> None:
    """Raises UsageError where a bundle is not what its option says."""
    one, other = bundle.manifest, int8.manifest
    if other.precision != "int8":
        raise UsageError(f"{int8.root}: its products are {other.precision}; --int8 takes a bundle of --precision int8")
    if one.precision != "fp32":
        raise UsageError(
            f"{bundle.root}: its products are {one.precision}; --engine takes the float32 bundle beside --int8"
        )
    same = [(m.architecture, m.image_size, m.classes, m.thresholds, len(m.decisions)) for m in (one, other)]
    if same[0] != same[1]:
        raise UsageError(f"{int8.root}: of another model or other ξ than {bundle.root}: quantize that one")


def _check_source(bundle: Bundle, checkpoint: Path) -> None:
    """Raises DovitError where the bundle says that it was made of another checkpoint."""
    source = bundle.manifest.source
    if source and source.checkpoint != source_of(checkpoint, {}, None, None, verified=False).checkpoint:
        raise DovitError(
            f"{checkpoint}: not the checkpoint that {bundle.root} was exported from (another SHA-256): give that one, "
            "or export again"
        )


def memory_of(peer: Peer, manifest: Manifest) -> float:
    """Bytes that a peer needs at most, roughly: several copies of the weights, as measured with ViT-B and ViT-L (2.3 to 3.3
    times the weights, NNCF 6.9 while it quantises), and for ONNX Runtime the attention scores of one layer twice."""
    weights = 4 * sum(step.parameters for step in manifest.steps)
    static_int8 = peer.kind == "openvino" and peer.precision == "int8"
    need = weights * (7 if static_int8 else 3.5) + 300 * 2**20
    if peer.kind == "onnxruntime" or (peer.kind == "chain" and peer.provider == "cpu"):
        heads = manifest.embed_dim // 64
        need += 2 * 4 * heads * (manifest.tokens + manifest.prefix) ** 2
    return need


def available_memory() -> int | None:
    """Bytes that a new process can use without swapping, by Linux; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _start(
    peers: Sequence[Peer],
    manifest: Manifest,
    folder: Path,
    stack: ExitStack,
    left_out: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, Running], dict[str, dict[str, Any]]]:
    """One after the other, so that loading does not need everyone's memory at once. What a worker said, by its name."""
    running: dict[str, Running] = {}
    facts: dict[str, dict[str, Any]] = {}
    for number, peer in enumerate(peers):
        need, there = memory_of(peer, manifest), available_memory()
        if there is not None and need > there:
            left_out[peer.name] = (
                f"needs about {need / 2**30:.1f} GiB of memory beside the rows before it, and {there / 2**30:.1f} are available: "
                "measure it in a run of its own with --only"
            )
            continue
        progress(f"loading {peer.name}")
        process = stack.enter_context(Running(peer, folder, number))
        try:
            facts[peer.name] = process.ready()
            running[peer.name] = process
        except DovitError as error:
            left_out[peer.name] = str(error)
    return running, facts


def _measure(
    running: dict[str, Running],
    runs: int,
    facts: dict[str, dict[str, Any]],
    left_out: dict[str, str],
    progress: Progress,
) -> dict[str, list[float]]:
    """Seconds of every peer in every round. One that ends in the middle is left out, and the others go on."""
    seconds: dict[str, list[float]] = {name: [] for name in running}
    shuffle = random.Random(0).shuffle
    for number in range(runs):
        progress(f"measuring: round {number + 1} of {runs}")
        order = list(seconds)
        shuffle(order)
        for name in order:
            time.sleep(SETTLE_S)
            try:
                answer = running[name].run()
            except DovitError as error:
                left_out[name] = str(error)
                del seconds[name]
                continue
            seconds[name].append(answer["seconds"])
            facts[name]["peak_mib"] = answer["peak_mib"]
    return seconds


def rows_of(
    peers: Sequence[Peer],
    seconds: dict[str, list[float]],
    facts: dict[str, dict[str, Any]],
    labels: dict[str, np.ndarray],
    manifest: Manifest,
) -> list[dict[str, Any]]:
    """The rows of the report.

    `speedup`: over the dense model of the same runtime and precision; `over_best_peer`: over the fastest dense model but int8;
    both are medians of paired ratios, and None where there is no such row. `labels_equal`: share of the first row's labels.
    """
    dense = [peer for peer in peers if peer.kind != "chain"]
    best = min(
        (peer.name for peer in dense if peer.precision != "int8"),
        key=lambda name: statistics.median(seconds[name]),
        default=None,
    )
    first = labels[peers[0].name]
    rows = []
    for peer in peers:
        times, fact = seconds[peer.name], facts[peer.name]
        base = next((other.name for other in dense if _runtime(other) == _runtime(peer)), None)
        kept = tuple(fact.get("kept", (manifest.tokens,)))
        macs = (manifest.macs(kept) if peer.kind == "chain" else manifest.dense_macs)[1]
        rows.append(
            {
                "name": peer.name,
                "kept": list(kept),
                "latency_ms": statistics.median(times) * 1e3,
                "fastest_ms": min(times) * 1e3,
                "gmacs_true": macs / 1e9,
                "mac_ratio": manifest.dense_macs[1] / macs,
                "speedup": paired_ratio(seconds[base], times) if base else None,
                "over_best_peer": paired_ratio(seconds[best], times) if best else None,
                "best_peer": best,
                "labels_equal": float((labels[peer.name] == first).mean()),
                "load_s": fact["load_s"],
                "peak_mib": fact["peak_mib"],
                "schedule": fact.get("schedule"),
            }
        )
    return rows


def _runtime(peer: Peer) -> tuple[str, str]:
    """Runtime and precision, as the dense peers name them."""
    if peer.kind != "chain":
        return peer.kind, peer.precision
    return {"cpu": "onnxruntime"}.get(peer.provider, peer.provider), peer.precision
