"""Times a bundle on the CPU: the chain at several thresholds against the dense model as one graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dovit.benchmarks.measure import interleaved, paired_ratio
from dovit.benchmarks.report import Settings, report_head
from dovit.runtime.arguments import check_keep
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError
from dovit.runtime.loading import load
from dovit.runtime.session import Session

DENSE = "dense, one graph"


def bench(engine: Path, image: np.ndarray | None, settings: Settings) -> dict[str, Any]:
    """Rows with latency, MACs and the ratios against the dense model, which is put together from the bundle's steps.

    Both run under ONNX Runtime's CPU provider; `compare_peers` has the other runtimes. `image` uint8 [H, W, 3] of the bundle's
    size, default noise; for the shares of `settings.keep` thresholds are looked for on this image.
    """
    session = load(engine, "onnxruntime", provider="cpu", threads=settings.threads)
    manifest = session.manifest
    height, width = manifest.image_size
    if image is None:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    batch = image[None]
    dense = _dense_engine(engine, settings.threads)
    every = session.capacities("exact")

    def chain(thresholds: Sequence[float]) -> Callable[[], object]:
        return lambda: session.chain.run(batch, thresholds, every)

    chains = {"chain, ξ = 1": (1.0,) * len(manifest.decisions), "chain, the bundle's ξ": manifest.thresholds}
    if settings.keep is not None:
        name = f"chain, keep {'/'.join(f'{share:g}' for share in settings.keep)}"
        chains[name] = thresholds_for(session, batch, settings.keep)
    candidates: dict[str, Callable[[], object]] = {
        DENSE: lambda: dense.run({"image": batch}, {"logits": None, "labels": None}),
        **{name: chain(thresholds) for name, thresholds in chains.items()},
    }
    seconds = interleaved(candidates, settings.runs, settings.warmup)

    dense_macs = manifest.dense_macs
    rows = [_row(DENSE, seconds, (), dense_macs, dense_macs)]
    for name, thresholds in chains.items():
        kept = tuple(d.keep.shape[1] for d in session.chain.run(batch, thresholds, every).decisions)
        rows.append(_row(name, seconds, kept, manifest.macs(kept), dense_macs))
    return report_head(engine, manifest, settings) | {"backend": session.backend, "rows": rows}


def thresholds_for(session: Session, batch: np.ndarray, keep: Sequence[float]) -> tuple[float, ...]:
    """ξ of each decision such that this image keeps the given shares of all tokens, as nearly as its confidences allow."""
    found: list[float] = []
    for wanted in check_keep(session.manifest, keep):
        rest = [1.0] * (len(keep) - len(found))
        decisions = session.chain.run(batch, [*found, *rest], session.capacities("exact")).decisions
        if len(decisions) == len(found):  # the last one has kept no token: there are none to decide on
            return (*found, *rest)
        ascending = np.sort(decisions[len(found)].confidence[0])
        count = min(wanted, len(ascending))
        lower = ascending[count - 1] if count else 0.0
        upper = ascending[count] if count < len(ascending) else 1.0
        found.append((float(lower) + float(upper)) / 2)
    return tuple(found)


def _row(
    name: str, seconds: dict[str, list[float]], kept: tuple[int, ...], macs: tuple[int, int], dense: tuple[int, int]
) -> dict[str, Any]:
    times = seconds[name]
    speedup = paired_ratio(seconds[DENSE], times)
    ratio = dense[1] / macs[1]
    return {
        "name": name,
        "kept": list(kept),
        "latency_ms": statistics.median(times) * 1e3,
        "fastest_ms": min(times) * 1e3,
        **{f"p{share}_ms": float(np.percentile(times, share)) * 1e3 for share in (50, 90, 99)},
        "images_per_s": len(times) / sum(times),
        "gmacs_paper": macs[0] / 1e9,
        "gmacs_true": macs[1] / 1e9,
        "mac_ratio": ratio,
        "speedup": speedup,
        "efficiency": speedup / ratio,
    }


def _dense_engine(engine: Path, threads: int) -> OnnxRuntimeEngine:
    try:
        from dovit.export.graph.dense import dense_graph
    except ImportError as error:
        raise DovitError(f"the dense graph needs the package {error.name}: pip install 'dovit[export]'") from None
    bundle = open_bundle(engine)
    folder = bundle.onnx(bundle.manifest.steps[0]).parent
    return OnnxRuntimeEngine("dense", dense_graph(bundle).SerializeToString(), weights=folder, threads=threads)
