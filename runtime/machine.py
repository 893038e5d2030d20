"""What this machine has: its GPU, and instructions of its CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


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
def int8_sums_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this is an x86 CPU without VNNI: libraries that multiply int8 there with AVX2 or AVX512 add products in 16 bits.
    False where that is not known."""
    found = _words("flags", cpuinfo)
    return bool(found) and {"avx512_vnni", "avx_vnni"}.isdisjoint(found)


@cache
def cpu_multiplies_in_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU has instructions for products in bfloat16: AMX or AVX512-BF16, or those of Arm. False where that is not
    known."""
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(_words("flags|Features", cpuinfo))


def _words(names: str, cpuinfo: Path) -> list[str]:
    """Of the first line of /proc/cpuinfo that begins with one of `names`; none where there is no such line or file."""
    try:
        found = re.search(rf"^(?:{names})\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return []
    return [] if found is None else found[1].split()
