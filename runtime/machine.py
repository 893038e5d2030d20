"""What this machine has: its GPU, and instructions of its CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """A GPU, and the newest CUDA version that its driver supports."""

    name: str
    compute_capability: str  # such as 8.9
    driver_cuda: tuple[int, int]  # such as (13, 0)


@cache
def find_gpu(number: int = 0) -> Gpu | str:
    """GPU number `number`, or the reason why it cannot be used."""
    try:
        from cuda.bindings import driver
        from cuda.core import Device
    except ImportError as error:
        return f"the package {error.name or 'cuda-core'} is missing: pip install 'dovit[tensorrt-rtx]'"
    try:
        device = Device(number)
        _, version = driver.cuDriverGetVersion()
        major, minor = device.compute_capability
        return Gpu(device.name, f"{major}.{minor}", (version // 1000, version % 1000 // 10))
    except Exception as error:  # no driver library, a driver that is too old, no device: types of several packages
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "NVIDIA driver library" in reason:  # cuda.pathfinder lists the places that it searched, in three lines
            reason = "libcuda.so, which the NVIDIA driver brings, is not installed"
        return f"no NVIDIA GPU {f'number {number} ' if number else ''}was found ({reason})"


@cache
def cpu_multiplies_in_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for products in bfloat16: AMX or AVX512-BF16, or those of Arm. False where that is not
    known."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return False
    return found is not None and not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(found[1].split())
