"""One peer in a process of its own: `python -m dovit.benchmarks.peers.worker FILE`, FILE being a Peer as JSON.

Says one JSON line when the model is loaded and warm, and then, for every line that it reads, the seconds of one image. What
libraries print goes to the error output.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dovit.benchmarks.chain import thresholds_for
from dovit.benchmarks.peers import dense
from dovit.benchmarks.peers.peer import Peer
from dovit.runtime.bundle.manifest import Schedule
from dovit.runtime.errors import DovitError
from dovit.runtime.loading import load
from dovit.runtime.openvino.device import computes_bf16


def main(file: str) -> None:
    """Load, warm up, and answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        peer = Peer.model_validate_json(Path(file).read_text())
        start = time.perf_counter()
        run, found = _open(peer, np.load(peer.image)[None])
        loaded = time.perf_counter() - start
        for _ in range(peer.warmup):
            run()
        np.save(Path(file).with_suffix(".npy"), run())
    except Exception as error:  # of any library: the row is left out, with the reason
        _say(answers, {"error": _reason(error)})
        return
    _say(answers, found | {"load_s": loaded})
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        _say(answers, {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def _open(peer: Peer, image: np.ndarray) -> tuple[Callable[[], np.ndarray], dict[str, Any]]:
    """What runs `image` [1, H, W, 3] once, and what is known of the chain: `kept` and the true MACs."""
    if peer.kind == "chain":
        return _chain(peer, image)
    model = Path(peer.model)
    height, width = image.shape[1:3]
    match peer.kind, peer.precision:
        case "onnxruntime", "int8":
            labels = dense.onnxruntime_int8(model, peer.threads)
        case "onnxruntime", _:
            labels = dense.onnxruntime_fp32(model, peer.threads)
        case "openvino", "int8":
            labels = dense.openvino_int8(model, peer.threads, image)
        case "openvino", "fp32" | "bf16" as precision:
            labels = dense.openvino(model, peer.threads, precision)
        case kind, precision:
            compiled = kind == "torch.compile"
            labels = dense.torch_dense(model, (height, width), peer.threads, precision, compiled=compiled)
    return lambda: labels(image), {}


def _chain(peer: Peer, image: np.ndarray) -> tuple[Callable[[], np.ndarray], dict[str, Any]]:
    session = load(
        peer.model,
        provider=peer.provider,
        # for what is not int8 in an int8 bundle: the same precision as in NNCF's dense model
        precision="bf16" if peer.precision == "bf16" or (peer.precision == "int8" and computes_bf16()) else "fp32",
        threads=peer.threads,
        check_accuracy=False,  # how many labels are equal is in the row
    )
    thresholds = (
        (1.0,) * len(session.manifest.decisions) if peer.keep is None else thresholds_for(session, image, peer.keep)
    )
    schedule: Schedule = "exact"  # of one image run again and again no token count is new
    capacities = session.capacities(schedule)

    def run() -> np.ndarray:
        return session.chain.run(image, thresholds, capacities).labels

    decisions = session.chain.run(image, thresholds, capacities).decisions
    return run, {"kept": [decision.keep.shape[1] for decision in decisions], "schedule": schedule}


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"the package {error.name} is not installed"
    if isinstance(error, DovitError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


if __name__ == "__main__":
    main(sys.argv[1])
