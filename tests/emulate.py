"""The kernels' own sources and launchers compiled for the host, on emulator/emulator.h. Only the launch syntax is rewritten."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent / "emulator"
KERNELS = Path(__file__).parents[1] / "plugins" / "kernels"
# kernel<T, n><<<grid, threads, 0, stream>>>(arguments);
LAUNCH = re.compile(r"(\w+(?:<[^<>]*>)?)<<<(.*?), (\w+), 0, stream>>>\((.*?)\);", re.DOTALL)
AT_ONCE = r"emulator::launch(\2, \3, [&] { \1(\4); });"
QUEUED = r"emulator::queue(\2, \3, stream, [=] { \1(\4); });"  # needs cpp/stand_in/launch.h
FLAGS = ["-std=c++20", "-O1", "-g1", "-pthread", "-D__CUDACC__", "-include", str(HERE / "emulator.h")]


def kernel_sources() -> list[Path]:
    """All files that a compilation of the kernels depends on."""
    return [*KERNELS.glob("*.*"), *HERE.rglob("*.h"), Path(__file__)]


def rewritten(source: str, launch: str = AT_ONCE) -> str:
    """CUDA C++ as C++; every launch is found, or this raises ValueError."""
    text, count = LAUNCH.subn(launch, source)
    if count != source.count("<<<"):
        raise ValueError("a launch is written as none was before")
    return text


def compile_kernels(compiler: str, folder: Path, out: Path, *more: str, launch: str = AT_ONCE) -> None:
    """All kernels and their C interface as `out`, with the compiler's further arguments."""
    for source in KERNELS.glob("*.cu"):  # each has its own kThreads, and they are compiled as one
        text = rewritten(source.read_text(), launch).replace("kThreads", f"kThreads_{source.stem}")
        (folder / f"{source.stem}.cpp").write_text(text)
    sources = together(folder / "kernels.cc", *sorted(folder.glob("*.cpp")), KERNELS / "host.cpp")
    command = [compiler, *FLAGS, f"-I{HERE / 'include'}", f"-I{KERNELS}", str(sources), *more, "-o", str(out)]
    subprocess.run(command, check=True)


def together(file: Path, *sources: Path) -> Path:
    """`file`, which includes `sources`: of most, the headers take longer to compile than what is in them."""
    file.write_text("".join(f'#include "{source}"\n' for source in sources))
    return file
