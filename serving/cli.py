"""`dovit-serve`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.options import Backend, BackendChoice, Engine, Json, Precision, PrecisionChoice
from dovit.runtime.cli.output import error_console, output_console, print_line
from dovit.runtime.cli.values import parse_numbers
from dovit.runtime.errors import UsageError
from dovit.runtime.files import check_folder_name
from dovit.runtime.openvino.device import computes_bf16, why_not
from dovit.serving.config import Serving, inputs_of, outputs_of
from dovit.serving.repository import add_model

EPILOG = """\b
Examples:
    dovit-serve --engine engines/ --repository models/ --name street
    dovit-serve --engine engines/ --repository models/ --name street \\
        --version 2
    dovit-serve --engine engines/ --repository models/ --name street-gpu \\
        --backend tensorrt-rtx --gpus 0,1
"""


def command(
    engine: Engine,
    repository: Annotated[Path, typer.Option(metavar="FOLDER", help="Triton's model repository; made if missing.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The model's name, by which clients ask for it.")],
    version: Annotated[int, typer.Option(metavar="N", help="The model's version.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the version if it is there.")] = False,
    versions: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many versions are served at once, the highest ones.")
    ] = 1,
    backend: Backend = BackendChoice.auto,
    precision: Precision = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads of each instance. Default: the cores, shared equally."),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes that run the model, on the CPU or on each GPU.")
    ] = 1,
    gpus: Annotated[
        str | None, typer.Option(metavar="N,…", help="Numbers of the GPUs, for a TensorRT backend. Default: 0.")
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most images that Triton hands over at once, all of one size.")
    ] = 8,
    queue_delay: Annotated[
        int, typer.Option(min=0, metavar="µs", help="How long a request waits for others, to be handed over with them.")
    ] = 0,
    warm_up: Annotated[
        bool, typer.Option("--warm-up/--no-warm-up", help="Segment one black image before the model counts as ready.")
    ] = True,
    site_packages: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the server's Python finds dovit, as .venv/lib/python3.12/site-packages; may be repeated. "
            "Default: what is installed in that Python.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model repository for NVIDIA Triton Inference Server: config.pbtxt, model.py, and the bundle beside it.

    Other models and versions in REPOSITORY stay as they are. The server's Python must have dovit installed.
    """
    on_gpu = backend in (BackendChoice.tensorrt, BackendChoice.tensorrt_rtx)
    numbers = parse_numbers(gpus, int, "--gpus")
    check_folder_name(repository, "--repository")
    if numbers and not on_gpu:
        raise UsageError(f"--gpus {gpus} is for --backend tensorrt or tensorrt-rtx, not {backend.value}")
    if numbers and (min(numbers) < 0 or len(set(numbers)) < len(numbers)):
        raise UsageError(f"--gpus {gpus}: give the number of each GPU once, from 0")
    parameters = [("backend", backend.value)]
    if precision:
        parameters.append(("precision", precision.value))
    if threads is not None:
        parameters.append(("threads", str(threads)))
    serving = Serving(
        instances=instances,
        gpus=(numbers or (0,)) if on_gpu else (),
        max_batch=max_batch,
        queue_delay=queue_delay,
        versions=versions,
        warm_up=warm_up,
        parameters=tuple(parameters),
    )
    for folder in site_packages or ():
        if not folder.is_dir():
            raise UsageError(
                f"--site-packages {folder}: no such folder; give the site-packages of an environment with dovit"
            )
    if precision == PrecisionChoice.bf16 and not on_gpu and why_not() is None and not computes_bf16():
        print_line(
            error_console(),
            "dovit-serve: note: precision bf16: this CPU has no bf16 instructions (AVX512-BF16 or AMX), and on one like it "
            "Triton refuses the model; leave --precision out for such a server",
        )
    manifest = add_model(
        engine, repository, name, serving, version=version, replace=replace, site_packages=site_packages or ()
    )
    model = repository / name
    start = (
        f"tritonserver --model-repository={shlex.quote(str(repository.absolute()))} "
        "--http-address=127.0.0.1 --grpc-address=127.0.0.1"
    )
    if as_json:
        row = {
            "model": str(model),
            "name": name,
            "version": version,
            "inputs": [tensor.name for tensor in inputs_of(manifest)],
            "outputs": [tensor.name for tensor in outputs_of(manifest)],
            "start": start,
        }
        print(json.dumps(row))
        return
    console = output_console()
    height, width = manifest.image_size
    where = f"GPU {', '.join(map(str, serving.gpus))}" if on_gpu else "the CPU"
    plural = "s" * (instances != 1)
    print_line(
        console,
        f"{model}, version {version}: {manifest.architecture}, {height}×{width}, {manifest.classes} classes; "
        f"{instances} instance{plural} on {where}, batches of up to {max_batch}",
    )
    print_line(console, f"start with: {start}")


def main() -> None:
    """Entry point."""
    run_command(command, "dovit-serve", epilog=EPILOG)
