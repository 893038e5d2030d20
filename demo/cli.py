"""`dovit-demo`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from dovit.demo.page import build_page, check_address, import_gradio, launch
from dovit.demo.view import Images, Viewer
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.options import Backend, BackendChoice, Engine, Mode, Threads
from dovit.runtime.images import read_image
from dovit.runtime.interrupts import signal_handlers
from dovit.runtime.loading import load
from dovit.scenes import scene

EPILOG = """\b
Examples:
    dovit-demo --engine engines/
    dovit-demo --engine engines/ --examples photos/ --port 8000
    dovit-demo --engine engines/ --host 0.0.0.0
"""
DRAWN = (3, 11, 24)  # seeds of the street scenes that are the examples where none are given


def command(
    engine: Engine,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to serve; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=65535, help="Default: the first free one from 7860.")
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGES", help="Example images, files or folders. Default: drawn streets."),
    ] = None,
    mode: Mode = None,
    backend: Backend = BackendChoice.auto,
    threads: Threads = None,
) -> None:
    """Try a bundle in a browser: images, a slider for each threshold, what is kept, and what it costs."""
    import_gradio()
    check_address(host, port)
    files = [one.file for one in find_inputs(examples or [])]
    with load(engine, backend.value, threads=threads) as session:
        height, width = session.manifest.image_size
        shown: list[np.ndarray] = [read_image(file) for file in files] or [scene(n, height, width)[0] for n in DRAWN]
        viewer = Viewer(session, Images(shown), mode.value if mode else None)
        viewer.view(
            "example-0", session.manifest.thresholds
        )  # the first run is slower, and a bundle that cannot run must fail now
        page = build_page(viewer, f"dovit: {engine.absolute().name}, {session.manifest.architecture}")
        signals: list[int] = []
        try:
            address = launch(page, host, port)
            with signal_handlers(signals.append, all_signals=True, interrupt=False):  # how a server ends: no error
                print(f"{address}  (Ctrl-C ends it)", flush=True)
                while not signals:
                    time.sleep(0.2)
        finally:
            page.close()


@contextmanager
def _folder_of_files() -> Iterator[None]:
    """A folder for what Gradio serves, uploads among it, which goes when the demo ends; the user's GRADIO_TEMP_DIR stays.

    Gradio's own is one folder for all users of a machine, of whom the first alone may write to it, and keeps everything. It reads
    the variable when it is imported."""
    if os.environ.get("GRADIO_TEMP_DIR"):
        yield
        return
    with TemporaryDirectory(prefix="dovit-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield


def main() -> None:
    """Entry point."""
    with _folder_of_files():
        run_command(command, "dovit-demo", epilog=EPILOG)
