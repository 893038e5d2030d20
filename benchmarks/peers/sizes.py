"""How the cost grows with the number of tokens: one checkpoint exported at several image sizes, dense and chain at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dovit.benchmarks.peers.compare import compare_peers
from dovit.benchmarks.report import Settings
from dovit.export.run import export
from dovit.runtime.progress import Progress, no_progress

GRIDS = ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128))  # patches: 256, 512, 1024, … 8192 tokens
ROWS = ("ONNX Runtime fp32", "OpenVINO fp32", "OpenVINO bf16")


def compare_sizes(
    checkpoint: Path,
    patch: int,
    settings: Settings,
    *,
    grids: Sequence[tuple[int, int]] = GRIDS,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """The reports of `compare_peers`, one for each of `grids` (patches down, across) with patches of `patch` pixels.

    Images are noise; positions are resized to each grid as an export does it. Without `settings.only`: ROWS. Raises DovitError or
    UsageError.
    """
    settings = replace(settings, only=settings.only or ROWS)
    reports = []
    for grid in grids:
        with TemporaryDirectory(prefix="dovit-sizes-") as folder:
            tokens = grid[0] * grid[1]

            def at_size(text: str, fraction: float | None = None, *, tokens: int = tokens) -> None:
                progress(f"{tokens} tokens: {text}", fraction)

            engine = Path(folder) / "engines"
            options = {"image_size": (grid[0] * patch, grid[1] * patch)}
            export(checkpoint, engine, options, None, None, check=False, progress=at_size)
            reports.append(compare_peers(engine, None, settings, progress=at_size) | {"engine": str(checkpoint)})
    return reports
