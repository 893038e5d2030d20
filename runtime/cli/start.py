"""Where the installed commands begin. A command's modules take up to seconds to import, and an interrupt meanwhile ends it in a
sentence too: so this module imports nothing that takes long."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

# name: (module, what it does), in the order in which they are used on a model
COMMANDS = {
    "train": ("dovit.training.cli.train", "Train a segmenter with token pass, or decision heads for one."),
    "adapt": ("dovit.training.cli.adapt", "Give a frozen segmenter token pass, from images with or without labels."),
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


def dovit() -> None:
    """Entry point of `dovit`."""
    _begin("dovit.runtime.cli.main")


def __getattr__(name: str) -> Callable[[], None]:
    """The entry point of `dovit-NAME`."""
    if name not in COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_begin, COMMANDS[name][0])


def _begin(module: str) -> None:
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        from dovit.runtime.cli.app import exit_interrupted

        exit_interrupted(os.path.basename(sys.argv[0]))
