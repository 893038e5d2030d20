"""Times the kernels on a GPU against copies of as many bytes: `python -m dovit.benchmarks.kernels --out kernels.json`.

Every call works on other memory than the ones before it, more in all than the L2 cache holds, and many calls are one CUDA graph:
what is timed is the kernels and the gaps between them, not their launches. Copies of as many bytes are timed in the same way, in
turns.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from dovit.plugins.launch import Kernels
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.output import output_console
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import find_gpu

if TYPE_CHECKING:
    import torch

L2_CACHES = 3  # so many times the L2 cache is what all copies of a case's memory take
MAX_COPIES = 64
Call = Callable[[int], None]  # queues the kernel on a stream


@dataclass(frozen=True)
class Case:
    """A kernel at one size. `make` prepares memory of its own and returns the call that works on it."""

    kernel: str
    sizes: str
    floor_bytes: int  # what must be read and written once
    make: Callable[[Kernels], Call]


def cases() -> list[Case]:
    """Each kernel at the sizes of a ViT-L at 1024×2048 pixels: 8192 tokens of 1024 channels, in half precision."""
    found = [_decide(8192, batch) for batch in (1, 8)]
    for batch in (1, 8):
        for kept in (0, 4096, 8192):
            found.append(_gather(batch, 8192, kept, 1024))
        found.append(_gather(batch, 8192, 4096, 1024, cell_side=8))
        found.append(_reconstruct(batch, 8192, 1024))
    for smooth in (True, False):
        found += [_labels(smooth, 19, 64, 128, (1024, 2048)), _labels(smooth, 19, 256, 512, (1024, 2048))]
        found.append(_labels(smooth, 19, 256, 512, (1080, 1920)))
    found += [_confidence(classes, 8192) for classes in (19, 150, 1000)]
    found.append(_normalise(1024, 2048))
    return found


def _decide(count: int, batch: int) -> Case:
    def make(kernels: Kernels) -> Call:
        import torch

        q = torch.rand(batch, count, device="cuda")
        xi = torch.tensor([0.5], device="cuda")
        capacities = torch.tensor([0, count // 4, count // 2, 3 * count // 4, count], device="cuda")
        keep, slots = _ints(batch, count), _ints(batch, count)
        staying, capacity = _ints(batch), _ints(1)
        return lambda stream: kernels.decide(
            _address(q),
            _address(xi),
            _address(capacities),
            5,
            batch,
            count,
            _address(staying),
            _address(keep),
            _address(slots),
            _address(capacity),
            0,
            stream,
        )

    return Case("decide", f"{count} tokens, batch {batch}", batch * count * 12, make)


def _gather(batch: int, count: int, kept: int, channels: int, cell_side: int = 0) -> Case:
    """Of a grid that is twice as wide as high. `cell_side`: merged by cell, 0: into the class token."""
    columns = math.isqrt(2 * count)
    prefix = 1 + (-(-count // columns // cell_side) * -(-columns // cell_side) if cell_side else 0)

    def make(kernels: Kernels) -> Call:
        import torch

        tokens, full = _halves(batch, prefix + count, channels), _halves(batch, count, channels)
        after = _halves(batch, prefix + kept, channels)
        index = torch.arange(count, dtype=torch.int32, device="cuda").repeat(batch, 1)
        chosen = torch.rand(batch, count, device="cuda").argsort(dim=1)[:, :kept].sort(dim=1).values
        slots = torch.full((batch, count), -1, dtype=torch.int32, device="cuda")
        slots.scatter_(1, chosen, torch.arange(kept, dtype=torch.int32, device="cuda").repeat(batch, 1))
        sums, counts = torch.zeros(2, batch, channels, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
        new_index = _ints(batch, max(kept, 1))
        scratch = torch.empty(kernels.gather_scratch_bytes(batch, count, channels), dtype=torch.uint8, device="cuda")
        return lambda stream: kernels.gather(
            "float16",
            _address(tokens),
            _address(index),
            _address(slots),
            _address(after),
            _address(new_index),
            _address(full),
            0 if cell_side else _address(sums[0]),
            0 if cell_side else _address(sums[1]),
            _address(counts[:1]),
            _address(counts[1:]),
            0,
            batch,
            count,
            kept,
            prefix,
            count,
            channels,
            cell_side,
            columns,
            _address(scratch),
            stream,
        )

    sizes = f"{count} → {kept} tokens × {channels}, batch {batch}" + (f", cells of {cell_side}²" if cell_side else "")
    return Case("gather", sizes, 4 * batch * (count + prefix) * channels, make)


def _reconstruct(batch: int, count: int, channels: int) -> Case:
    def make(kernels: Kernels) -> Call:
        import torch

        tokens, full = _halves(batch, 1 + count, channels), _halves(batch, count, channels)
        index = torch.arange(count, dtype=torch.int32, device="cuda").repeat(batch, 1)
        return lambda stream: kernels.reconstruct(
            "float16", _address(tokens), _address(index), _address(full), batch, count, 1, count, channels, stream
        )

    return Case("reconstruct", f"{count} tokens × {channels}, batch {batch}", 4 * batch * count * channels, make)


def _labels(smooth: bool, classes: int, height: int, width: int, size: tuple[int, int]) -> Case:
    def make(kernels: Kernels) -> Call:
        import torch
        import torch.nn.functional as F

        logits = torch.randn(1, classes, height, width, device="cuda")
        if smooth:  # as a segmenter's are: large areas of one class
            coarse = torch.randn(1, classes, height // 16, width // 16, device="cuda")
            logits = F.interpolate(coarse, (height, width), mode="bilinear")
        logits = logits.half().contiguous()
        labels = torch.empty(size, dtype=torch.uint8, device="cuda")
        return lambda stream: kernels.resized_labels(
            "float16", _address(logits), _address(labels), 1, classes, height, width, *size, stream
        )

    sizes = f"{classes} × {height} × {width} → {size[0]} × {size[1]}, {'smooth' if smooth else 'random'}"
    return Case("labels", sizes, 2 * classes * height * width + size[0] * size[1], make)


def _confidence(classes: int, count: int) -> Case:
    def make(kernels: Kernels) -> Call:
        import torch

        logits, out = _halves(1, classes, count), torch.empty(1, count, device="cuda")
        return lambda stream: kernels.confidence("float16", _address(logits), _address(out), 1, classes, count, stream)

    return Case("confidence", f"{classes} classes, {count} tokens", 2 * classes * count + 4 * count, make)


def _normalise(height: int, width: int) -> Case:
    def make(kernels: Kernels) -> Call:
        import torch

        pixels = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, device="cuda")
        out = _halves(1, 3, height, width)
        mean, deviation = np.full(3, 120, np.float32), np.full(3, 60, np.float32)
        return lambda stream: kernels.normalise(
            "float16", _address(pixels), _address(out), 1, height, width, mean, deviation, stream
        )

    return Case("normalise", f"{height} × {width}", 9 * height * width, make)


def measure(case: Case, kernels: Kernels, rounds: int) -> dict[str, Any]:
    """Microseconds a call, and a copy of as many bytes, each a median over `rounds` in turns."""
    import torch

    cache = torch.cuda.get_device_properties(0).L2_cache_size
    copies = min(MAX_COPIES, max(2, -(-L2_CACHES * cache // case.floor_bytes)))
    calls = [case.make(kernels) for _ in range(copies)]
    size = max(case.floor_bytes // 2, 1)
    sources = [torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(copies)]
    targets = [torch.empty_like(source) for source in sources]

    def every() -> None:
        for call in calls:
            call(torch.cuda.current_stream().cuda_stream)

    def copy() -> None:
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)

    graphs = {"kernel": _captured(every), "copy": _captured(copy)}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for number in range(rounds + 3):
        for name, graph in graphs.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if number >= 3:
                times[name].append(start.elapsed_time(end) * 1e3 / copies)
    kernel, copied = (statistics.median(times[name]) for name in ("kernel", "copy"))
    return {
        "kernel": case.kernel,
        "sizes": case.sizes,
        "us": round(kernel, 3),
        "fastest_us": round(min(times["kernel"]), 3),
        "floor_bytes": case.floor_bytes,
        "gb_per_s": round(case.floor_bytes / kernel / 1e3, 1),
        "copy_us": round(copied, 3),
        "share_of_copy": round(copied / kernel, 3),
        "copies": copies,
    }


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    import torch

    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def _halves(*shape: int) -> torch.Tensor:
    import torch

    return torch.randn(shape, device="cuda", dtype=torch.float16)


def _ints(*shape: int) -> torch.Tensor:
    import torch

    return torch.empty(shape, dtype=torch.int32, device="cuda")


def _address(tensor: torch.Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def command(
    out: Annotated[Path | None, typer.Option(help="Write the JSON there.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, kernel and copy run once.")] = 30,
) -> None:
    """Time every kernel of the token pass against copies of as many bytes."""
    gpu = find_gpu()
    if isinstance(gpu, str):
        raise DovitError(gpu)
    import torch

    kernels = Kernels()
    rows = [measure(case, kernels, rounds) for case in cases()]
    report = {
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver_cuda": ".".join(map(str, gpu.driver_cuda)),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "rounds": rounds,
        "rows": rows,
        "command": f"python -m dovit.benchmarks.kernels --rounds {rounds}",
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = Table(title=f"{gpu.name}, {date.today()}")
    for title in ("kernel", "sizes", "µs", "copy, µs", "of a copy"):
        table.add_column(title, justify="left" if title in ("kernel", "sizes") else "right")
    for row in rows:
        table.add_row(
            row["kernel"], row["sizes"], f"{row['us']:.1f}", f"{row['copy_us']:.1f}", f"{row['share_of_copy']:.2f}"
        )
    output_console().print(table)


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.kernels")


if __name__ == "__main__":
    main()
