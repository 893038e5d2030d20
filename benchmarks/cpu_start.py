"""What a session on a CPU costs before and behind its images: each provider in processes of their own, in turns.

    python -m dovit.benchmarks.cpu_start --engine engines/ --rounds 5 [--precision bf16] [--threads 2]

CPU milliseconds of all threads, medians over the processes: to load (with and without what OpenVINO kept in a folder), for the
first image, for one after it, in the 60 ms behind an image, and of a 1200×900 picture resized with Pillow right behind an image
over the same by itself. Imports of libraries are not counted. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from dovit.benchmarks.report import at_least_one, errors_in_a_sentence
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.errors import DovitError
from dovit.runtime.openvino.device import CpuPrecision, check_precision

WORKER = """
import json, statistics, sys, time
import numpy as np
from PIL import Image
import dovit
options = json.loads(sys.argv[1])
import onnxruntime
if options["provider"] == "openvino":
    from dovit.runtime.openvino.device import core
    core()

def cpu(work):
    before = time.process_time()
    made = work()
    return made, 1e3 * (time.process_time() - before)

session, load = cpu(lambda: dovit.load(**options))
image = np.random.default_rng(0).integers(0, 256, (*session.manifest.image_size, 3), dtype=np.uint8)
_, first = cpu(lambda: session(image))
picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8))
resize = lambda: picture.resize((600, 450))
rows = []
for _ in range(7):
    alone = cpu(resize)[1]
    one = cpu(lambda: session(image))[1]
    behind = cpu(resize)[1]
    session(image)
    idle = cpu(lambda: time.sleep(0.06))[1]
    rows.append((one, idle, behind / alone))
one, idle, slower = (statistics.median(column) for column in zip(*rows))
print(json.dumps({"load": load, "first_image": first, "image": one, "behind_it": idle, "resize_behind_over_alone": slower}))
"""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--precision", choices=get_args(CpuPrecision), default="fp32", help="of OpenVINO")
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    with errors_in_a_sentence(parser), TemporaryDirectory(prefix="dovit-start-") as cache:
        open_bundle(given.engine)  # or a process would end in a traceback
        check_precision(given.precision)
        same = {"path": str(given.engine), "threads": given.threads, "check_accuracy": False}
        openvino = same | {"provider": "openvino", "precision": given.precision}
        ways = {
            "ONNX Runtime fp32": same | {"provider": "cpu"},
            f"OpenVINO {given.precision}": openvino,
            f"OpenVINO {given.precision}, compiled before": openvino | {"cache": cache},
        }
        _measure(openvino | {"cache": cache})
        found = [{name: _measure(options) for name, options in ways.items()} for _ in range(given.rounds)]
    rows = [
        {"name": name} | {key: statistics.median(one[name][key] for one in found) for key in found[0][name]}
        for name in ways
    ]
    about = {"engine": str(given.engine), "threads": given.threads, "rounds": given.rounds}
    print(json.dumps(about | {"load_average": os.getloadavg(), "rows": rows}, indent=1))


def _measure(options: dict[str, object]) -> dict[str, float]:
    """Of a process of its own."""
    command = [sys.executable, "-c", WORKER, json.dumps(options)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1]
        raise DovitError(f"the process with provider {options['provider']} failed: {reason}")
    found: dict[str, float] = json.loads(ended.stdout)
    return found


if __name__ == "__main__":
    main()
