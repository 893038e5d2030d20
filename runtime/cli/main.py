"""`dovit`: the commands under one name. A command's own modules are imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.start import COMMANDS
from dovit.runtime.errors import UsageError

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
