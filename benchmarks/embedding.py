"""The C++ runtime beside the Python one, on the CPU: latency in pairs, start-up, resident memory.

`python -m dovit.benchmarks.embedding --engine engines/ --image image.png`, in a checkout with CMake, g++ and ninja. Each
runtime has a process of its own and they take turns, with a pause: the thread pool of the one would still spin when the
other begins.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dovit.benchmarks.measure import paired_ratio
from dovit.benchmarks.report import machine_and_versions
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli.app import run_command
from dovit.runtime.errors import DovitError
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image

ROOT = Path(__file__).parents[1]
PAUSE = 0.05  # seconds

# the Python side: the same protocol as embedding_worker.cpp
WORKER = """
import sys, time
import numpy as np
bundle, _, height, width, mode = sys.argv[1:]
shape = (int(height), int(width), 3)
pixels = np.frombuffer(sys.stdin.buffer.read(shape[0] * shape[1] * 3), np.uint8).reshape(shape)
start = time.perf_counter()
import dovit
session = dovit.load(bundle)
print(time.perf_counter() - start, flush=True)
for _ in sys.stdin.buffer:
    before = time.perf_counter()
    labels = session(pixels, mode=mode).labels
    seconds = time.perf_counter() - before
    checksum = int((labels.ravel() * np.arange(1, labels.size + 1, dtype=np.uint64)).sum()) & 0xFFFFFFFF
    print(f"{seconds:.9f} {checksum}", flush=True)
"""


class Worker:
    """A process with a session, and its measurements."""

    def __init__(self, command: list[str], pixels: np.ndarray) -> None:
        begin = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout
        self._in.write(pixels.tobytes())
        self._in.flush()
        self.load_seconds = float(self._line())
        self.first_seconds, self.checksum = self.run()
        self.start_seconds = time.perf_counter() - begin  # from the process's start to the first labels

    def run(self) -> tuple[float, int]:
        """Seconds of one image, and a checksum of its labels."""
        self._in.write(b"go\n")
        self._in.flush()
        seconds, checksum = self._line().split()
        return float(seconds), int(checksum)

    def memory_mib(self) -> float:
        """Resident now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def close(self) -> None:
        """End it."""
        self._in.close()
        self.process.wait()

    def _line(self) -> str:
        line = self._out.readline()
        if not line:
            raise DovitError("a worker ended early; its own message stands above")
        return line.decode()


def build(folder: Path) -> Path:
    """libdovit_runtime and the C++ worker, in release mode."""
    if not all(shutil.which(program) for program in ("cmake", "ninja", "g++")):
        raise DovitError("the C++ runtime is built first, which needs cmake, ninja and g++: install them")
    source = ROOT / "runtime" / "cpp"
    preset = ["--preset", "release", "-S", str(source), "-B", str(folder), "-DDOVIT_TESTS=OFF"]
    subprocess.run(["cmake", *preset], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(folder)], check=True, stdout=subprocess.DEVNULL)
    worker = folder / "embedding_worker"
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-O2",
            f"-I{source / 'include'}",
            str(ROOT / "benchmarks" / "embedding_worker.cpp"),
            f"-L{folder}",
            "-ldovit_runtime",
            f"-Wl,-rpath,{folder}",
            "-o",
            str(worker),
        ],
        check=True,
    )
    return worker


def compare(commands: dict[str, list[str]], pixels: np.ndarray, rounds: int) -> dict[str, Any]:
    """Latencies of the two in `rounds` pairs, each pair in turned order."""
    workers = {name: Worker(command, pixels) for name, command in commands.items()}
    try:
        if len({worker.checksum for worker in workers.values()}) != 1:
            raise DovitError("the two runtimes give different labels for this image")
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(3 + rounds):
            for name in sorted(workers, reverse=number % 2 == 0):
                time.sleep(PAUSE)
                taken = workers[name].run()[0]
                if number >= 3:
                    seconds[name].append(taken)
        report: dict[str, Any] = {
            "size": list(pixels.shape[:2]),
            "cpp_over_python": round(paired_ratio(seconds["cpp"], seconds["python"]), 4),
        }
        for name, worker in workers.items():
            report[name] = {
                "latency_ms": round(statistics.median(seconds[name]) * 1e3, 3),
                "fastest_ms": round(min(seconds[name]) * 1e3, 3),
                "resident_mib": round(worker.memory_mib(), 1),
            }
        return report
    finally:
        for worker in workers.values():
            worker.close()


def start_up(commands: dict[str, list[str]], pixels: np.ndarray, rounds: int) -> dict[str, Any]:
    """From the process's start to its first labels; medians."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            worker = Worker(command, pixels)
            taken[name].append((worker.start_seconds, worker.load_seconds))
            worker.close()
    return {
        name: {
            "to_first_labels_ms": round(statistics.median(t[0] for t in times) * 1e3, 1),
            "load_ms": round(statistics.median(t[1] for t in times) * 1e3, 1),
        }
        for name, times in taken.items()
    }


def command(
    engine: Annotated[Path, typer.Option(help="The bundle's folder.")],
    image: Annotated[Path, typer.Option(help="An image.")],
    rounds: Annotated[int, typer.Option(min=3, help="Pairs.")] = 100,
    folder: Annotated[Path, typer.Option(help="Where the C++ runtime is built.")] = ROOT / "build" / "cpp" / "release",
) -> None:
    """Print one JSON object: latency, start-up and memory of the C++ and the Python runtime."""
    worker = build(folder.resolve())
    manifest = open_bundle(engine).manifest
    spec = find_spec("onnxruntime")
    assert spec and spec.origin
    library = str(next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")))
    pixels = read_image(image)
    fitting = resize_image(pixels, manifest.image_size)

    def commands(picture: np.ndarray, mode: str) -> dict[str, list[str]]:
        arguments = [str(engine), library, *map(str, picture.shape[:2]), mode]
        return {"cpp": [str(worker), *arguments], "python": [sys.executable, "-c", WORKER, *arguments]}

    report = {
        "date": date.today().isoformat(),
        "command": f"python -m dovit.benchmarks.embedding --engine {engine} --image {image} --rounds {rounds}",
        **machine_and_versions(("dovit", "onnxruntime", "numpy", "pillow")),  # the load before anything is measured
        "architecture": manifest.architecture,
        "rounds": rounds,
        "rows": {
            "whole, the bundle's size": compare(commands(fitting, "whole"), fitting, rounds),
            "whole, resized": compare(commands(pixels, "whole"), pixels, rounds),
            "slide": compare(commands(pixels, "slide"), pixels, rounds),
        },
        "start_up": start_up(commands(fitting, "whole"), fitting, 9),
    }
    print(json.dumps(report, indent=1))


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.embedding")


if __name__ == "__main__":
    main()
