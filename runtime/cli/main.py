"""`dovit`: the commands under one name. A command's own modules are imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from dovit.runtime.cli.app import run_command
from dovit.runtime.errors import UsageError

# name: (module, what it does), in the order in which they are used on a model
COMMANDS = {
    "train": ("dovit.training.cli.train", "Train a segmenter with token pass, or decision heads for one."),
    "adapt": ("dovit.training.cli.adapt", "Give a frozen segmenter token pass, from unlabelled images."),
    "export": ("dovit.export.cli", "Turn a checkpoint into a bundle, with TensorRT plans."),
    "inspect": ("dovit.runtime.cli.inspect", "Show what is in a bundle."),
    "run": ("dovit.runtime.cli.run", "Segment images or videos."),
    "calibrate": ("dovit.evaluation.cli.calibrate", "Fit a bundle's thresholds to unlabelled images."),
    "eval": ("dovit.training.cli.eval", "Measure mIoU, tokens, MACs and latency on labelled images."),
    "bench": ("dovit.benchmarks.cli", "Time a bundle against the dense model."),
    "map": ("dovit.batch.cli", "Segment many images with Ray, on one machine or many."),
    "demo": ("dovit.demo.cli", "Try a bundle in a browser."),
    "serve": ("dovit.serving.cli", "Write a model repository for Triton Inference Server."),
}
EPILOG = "\n".join(
    [
        "\b",
        "Commands, each of which is installed as dovit-COMMAND as well:",
        *(f"    {name:<10} {what}" for name, (_, what) in COMMANDS.items()),
        "",
        "\b",
        "Examples:",
        "    dovit export --ckpt model.pth --out engines/",
        "    dovit run --engine engines/ image.png",
        "    dovit COMMAND --help",
    ]
)


def command(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="COMMAND [ARGS]...", help="See below.", show_default=False)
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print dovit's version and exit.")] = False,
) -> None:
    """Deploy token-pass vision transformers: from a checkpoint to a bundle that runs on CPUs and GPUs."""
    if version:
        from dovit import __version__

        print(f"dovit {__version__}")
    elif name is not None and name != "help":
        raise UsageError(f"no command {name}: choose one of {', '.join(COMMANDS)}; see dovit --help")
    else:
        print(context.get_help())


def main() -> None:
    """Entry point."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
        module = import_module(COMMANDS[name][0])
        run_command(module.command, f"dovit {name}", epilog=module.EPILOG.replace(f"dovit-{name}", f"dovit {name}"))
    if name and not name.startswith("-"):
        del sys.argv[2:]  # arguments of an unknown command
    run_command(command, "dovit", epilog=EPILOG)
