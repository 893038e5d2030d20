"""Load curve of a bundle in Triton: requests per second, p50 and p99 for a rising number of clients, and Triton's own counters.

    python -m dovit.benchmarks.triton_load --engine engines/ --image image.png --clients 1,4,16,64

Each client sends its next request when it has the answer to the last (a closed loop), with the encoded image, and asks for labels
and kept counts. The server is that of the wheel nvidia-pytriton, on the same cores as the clients.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dovit.benchmarks.triton_server import TritonServer, install_server, site_packages
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import Engine
from dovit.runtime.cli.values import parse_numbers
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image
from dovit.serving.config import Serving
from dovit.serving.repository import add_model

COUNTERS = ("nv_inference_request_success", "nv_inference_exec_count", "nv_inference_queue_duration_us")


def command(
    engine: Engine,
    image: Annotated[Path, typer.Option(metavar="FILE", help="What each request sends.")],
    server: Annotated[Path, typer.Option(metavar="FOLDER", help="Installed there if missing.")] = Path(
        "build/tritonserver"
    ),
    clients: Annotated[str, typer.Option(metavar="N,…", help="How many ask at a time.")] = "1,4,16,64",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each number of clients.")] = 15,
    instances: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that run the model.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, metavar="N", help="Most images of a batch.")] = 8,
) -> None:
    """Measure how a bundle's rate and latency in Triton rise with the number of clients."""
    try:
        import tritonclient.grpc  # noqa: F401 - before the server is installed and started
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs the package {error.name}: pip install 'dovit[triton]'") from None
    numbers = parse_numbers(clients, int, "--clients") or ()
    if min(numbers) < 1:
        raise UsageError(f"--clients {clients}: give numbers from 1")
    read_image(image)  # or each request would be refused
    with tempfile.TemporaryDirectory() as name:
        serving = Serving(instances=instances, max_batch=max_batch)
        add_model(engine, Path(name) / "models", "model", serving, site_packages=site_packages(server.absolute()))
        if not server.exists():
            install_server(server)
        with TritonServer(server.absolute(), Path(name) / "models", Path(name) / "log") as started:
            for number in numbers:
                print(json.dumps(measure(started, image.read_bytes(), number, seconds)), flush=True)


def measure(server: TritonServer, image: bytes, clients: int, seconds: float) -> dict[str, float]:
    """One point of the curve. Latencies in milliseconds, as the clients see them."""
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    before, start = server.counters(*COUNTERS), time.perf_counter()

    def send(_: int) -> list[float]:
        latencies = []
        connection = triton.InferenceServerClient(server.grpc)
        tensor = triton.InferInput("encoded", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image]], object))
        outputs = [triton.InferRequestedOutput(name) for name in ("labels", "kept")]
        while time.perf_counter() < start + seconds:
            sent = time.perf_counter()
            try:
                connection.infer("model", [tensor], outputs=outputs)
            except InferenceServerException as error:
                raise DovitError(f"Triton refused a request: {error}") from None
            latencies.append((time.perf_counter() - sent) * 1e3)
        return latencies

    with ThreadPoolExecutor(clients) as threads:
        latencies = list(threads.map(send, range(clients)))
    took = time.perf_counter() - start
    after, all_of_them = server.counters(*COUNTERS), np.concatenate([np.array(one) for one in latencies])
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


if __name__ == "__main__":
    run_command(command, "python -m dovit.benchmarks.triton_load")
