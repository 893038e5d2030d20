"""dovit-map beside dovit-run on the same cores: images per second, one after the other in each round.

    python -m dovit.benchmarks.map_images --engine engines/ --image image.png --images 200 --rounds 3

`run` is one dovit-run with a thread for each core; `runs` is a dovit-run of one thread for each core, at the same time, each with
its share of the images; `map` is a dovit-map with as many workers. The rate is taken from the times at which the PNG files of
labels were written, from the first to the last, so that starting (Ray takes seconds) does not count; the seconds of the whole
commands stand beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import Engine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image

KINDS = ("run", "runs", "map")


def command(
    engine: Engine,
    image: Annotated[Path, typer.Option(metavar="FILE", help="Each of the images is this one.")],
    images: Annotated[int, typer.Option(min=2, metavar="N", help="Images of each run.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often each is run.")] = 3,
    cores: Annotated[int | None, typer.Option(min=1, metavar="N", help="Default: all that it may use.")] = None,
) -> None:
    """Compare dovit-map with dovit-run on the same cores."""
    cores = cores or len(os.sched_getaffinity(0))
    if images < cores:
        raise UsageError(
            f"--images {images} is less than an image for each of {cores} cores: give more, or fewer --cores"
        )
    open_bundle(engine)  # or each of the processes would say what is wrong with it
    read_image(image)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for number in range(images):
            (folder / "images" / f"{number:06}{image.suffix}").symlink_to(image.absolute())
        files = sorted(str(file) for file in (folder / "images").iterdir())
        rows = []
        for number in range(rounds):
            row = {}
            for kind in KINDS:
                out = folder / f"{kind}{number}"
                start = time.perf_counter()
                _run_all(_commands(kind, engine, files, cores), out)
                row[f"{kind}_seconds"] = round(time.perf_counter() - start, 2)
                written = sorted(file.stat().st_mtime for file in out.rglob("*.png"))
                row[f"{kind}_rate"] = round((len(written) - 1) / (written[-1] - written[0]), 3)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    result = {
        "images": images,
        "cores": cores,
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
    try:
        for process, command in zip(running, commands, strict=True):
            if process.wait():
                raise DovitError(f"dovit {command[0]} ended with status {process.returncode}: its message is above")
    finally:
        for process in running:
            process.terminate()  # those that still run, or their images would be gone before they end
            process.wait()


if __name__ == "__main__":
    run_command(command, "python -m dovit.benchmarks.map_images")
