"""dovit-map beside dovit-run on the same cores: images per second, one after the other in each round.

    python -m dovit.benchmarks.map_images --engine engines/ --image image.png --images 200 --rounds 3

`run` is one dovit-run with a thread for each core; `runs` is a dovit-run of one thread for each core, at the same time, each with
its share of the images; `map` is a dovit-map with as many workers. The rate is taken from the times at which the PNG files of
labels were written, from the first to the last, so that starting (Ray takes seconds) does not count; the seconds of the whole
commands stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = ("run", "runs", "map")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for number in range(given.images):
            (folder / "images" / f"{number:06}{given.image.suffix}").symlink_to(given.image.absolute())
        files = sorted(str(file) for file in (folder / "images").iterdir())
        rows = []
        for number in range(given.rounds):
            row = {}
            for kind in KINDS:
                out = folder / f"{kind}{number}"
                start = time.perf_counter()
                _run_all(_commands(kind, given.engine, files, given.cores), out)
                row[f"{kind}_seconds"] = round(time.perf_counter() - start, 2)
                written = sorted(file.stat().st_mtime for file in out.rglob("*.png"))
                row[f"{kind}_rate"] = round((len(written) - 1) / (written[-1] - written[0]), 3)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    result = {
        "images": given.images,
        "cores": given.cores,
        "load_average": os.getloadavg(),
        "rounds": rows,
        **{
            f"median_map_over_{kind}": round(
                statistics.median(row["map_rate"] / row[f"{kind}_rate"] for row in rows), 3
            )
            for kind in KINDS[:2]
        },
    }
    print(json.dumps(result, indent=1))


def _commands(kind: str, engine: Path, files: list[str], cores: int) -> list[list[str]]:
    """The arguments of each process, to which its output folder is added."""
    if kind == "map":
        return [
            ["map", "--engine", str(engine), "--input", str(Path(files[0]).parent), "--workers", str(cores), "--output"]
        ]
    if kind == "run":
        return [["run", "--engine", str(engine), *files, "--threads", str(cores), "--out"]]
    return [["run", "--engine", str(engine), *files[part::cores], "--threads", "1", "--out"] for part in range(cores)]


def _run_all(commands: list[list[str]], out: Path) -> None:
    code = "from dovit.runtime.cli.main import main; main()"
    running = [
        subprocess.Popen([sys.executable, "-c", code, *command, str(out / str(number))], stdout=subprocess.DEVNULL)
        for number, command in enumerate(commands)
    ]
    for process in running:
        if process.wait():
            raise SystemExit(f"status {process.returncode}: {process.args!r}"[:500])


if __name__ == "__main__":
    main()
