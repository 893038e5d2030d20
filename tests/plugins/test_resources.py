"""The installed library's kernels: architectures, registers of a thread, and shared memory of a block."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from dovit import plugins

KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
USED = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")

pytestmark = pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")


def cuobjdump(*options: str) -> str:
    try:
        files = metadata.files("nvidia-cuda-cuobjdump") or []
    except metadata.PackageNotFoundError:
        pytest.skip("no cuobjdump (pip install nvidia-cuda-cuobjdump)")
    [program] = [file.locate() for file in files if file.name == "cuobjdump"]
    command = [str(program), *options, str(plugins.library())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_architecture_and_what_comes_after() -> None:
    """75 needs CUDA 11 to 13, 100 and 120 need 12.8: the four between are known to every nvcc that the library builds with."""
    machine = {int(sm) for sm in re.findall(r"sm_(\d+)", cuobjdump("--list-elf"))}
    assert {80, 86, 89, 90} <= machine <= {75, 80, 86, 89, 90, 100, 120}
    assert {int(sm) for sm in re.findall(r"sm_(\d+)", cuobjdump("--list-ptx"))} == {max(machine)}


def test_no_kernel_spills_or_takes_more_than_a_block_has() -> None:
    """With 72 registers a multiprocessor holds 896 threads; a block of 1024 has its own limit, 64, by its launch bounds. 48 KiB
    of shared memory a block has everywhere without asking."""
    used = [(name, *map(int, numbers)) for name, *numbers in USED.findall(cuobjdump("--dump-resource-usage"))]
    sources = [source.read_text() for source in KERNELS.glob("*.cu")]
    names = {name for source in sources for name in re.findall(r"(\w+_kernel)\(", source)}
    for name in sorted(names):
        own = [entry for entry in used if name in entry[0]]
        assert own, f"{name} is not in the library"
        registers, shared = max(entry[1] for entry in own), max(entry[3] for entry in own)
        print(
            f"{name:24} {len(own):3} variants, at most {registers:2} registers a thread, {shared:5} bytes shared a block"
        )
        assert registers <= 72 and shared <= 48 * 1024
        assert all(entry[2] == entry[4] == 0 for entry in own), f"{name} spills or has a stack"


def test_only_the_kernel_that_sets_a_switch_needs_the_driver_to_know_how() -> None:
    """A driver without cudaGraphSetConditional does not load code that names it; everything else is in other modules."""
    modules = cuobjdump("--dump-elf-symbols").split("Fatbin elf code:")[1:]
    kernels = [set(re.findall(r"(\w*?[a-z]\w*_kernel)", symbols)) for symbols in modules]
    assert any("decide_kernelILb0E" in symbols for symbols in modules)
    needing = [number for number, symbols in enumerate(modules) if "cudaGraphSetConditional" in symbols]
    assert needing and all(len(kernels[number]) == 1 for number in needing)
    for number in needing:
        assert "decide_kernelILb1E" in modules[number] and "decide_kernelILb0E" not in modules[number]
