"""Load curve of a bundle in Triton: requests per second, p50 and p99 for a rising number of clients, and Triton's own counters.

    python -m dovit.benchmarks.triton_load --engine engines/ --image image.png --clients 1,4,16,64

Each client sends its next request when it has the answer to the last (a closed loop), with the encoded image, and asks for labels
and kept counts. The server is that of the wheel nvidia-pytriton, on the same cores as the clients.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from dovit.benchmarks.triton_server import TritonServer, install_server, site_packages
from dovit.serving.config import Serving
from dovit.serving.repository import add_model

COUNTERS = ("nv_inference_request_success", "nv_inference_exec_count", "nv_inference_queue_duration_us")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--server", type=Path, default=Path("build/tritonserver"), help="installed there if missing")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=15, help="for each number of clients")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=8)
    given = parser.parse_args()
    if not given.server.exists():
        install_server(given.server)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        serving = Serving(instances=given.instances, max_batch=given.max_batch)
        packages = site_packages(given.server.absolute())
        add_model(given.engine, Path(name) / "models", "model", serving, site_packages=packages)
        with TritonServer(given.server.absolute(), Path(name) / "models", Path(name) / "log") as server:
            for clients in map(int, given.clients.split(",")):
                rows.append(measure(server, given.image.read_bytes(), clients, given.seconds))
                print(json.dumps(rows[-1]), flush=True)


def measure(server: TritonServer, image: bytes, clients: int, seconds: float) -> dict[str, float]:
    """One point of the curve. Latencies in milliseconds, as the clients see them."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    before, start = _counters(server), time.perf_counter()

    def send(number: int) -> None:
        connection = triton.InferenceServerClient(server.grpc)
        tensor = triton.InferInput("encoded", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image]], object))
        outputs = [triton.InferRequestedOutput(name) for name in ("labels", "kept")]
        while time.perf_counter() < start + seconds:
            sent = time.perf_counter()
            connection.infer("model", [tensor], outputs=outputs)
            latencies[number].append((time.perf_counter() - sent) * 1e3)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    after, all_of_them = _counters(server), np.concatenate([np.array(one) for one in latencies])
    requests, runs, queued = (after[name] - before[name] for name in COUNTERS)
    return {
        "clients": clients,
        "requests": len(all_of_them),
        "per_second": round(len(all_of_them) / took, 2),
        "p50_ms": round(float(np.percentile(all_of_them, 50)), 1),
        "p99_ms": round(float(np.percentile(all_of_them, 99)), 1),
        "triton_requests": requests,
        "mean_batch": round(requests / max(runs, 1), 2),
        "mean_queue_ms": round(queued / max(requests, 1) / 1e3, 1),
    }


def _counters(server: TritonServer) -> dict[str, float]:
    text = server.metrics()
    return {
        name: sum(float(value) for value in re.findall(rf"^{name}{{.*}} ([0-9.e+]+)$", text, re.MULTILINE))
        for name in COUNTERS
    }


if __name__ == "__main__":
    main()
