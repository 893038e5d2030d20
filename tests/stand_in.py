"""Libraries that stand in for the CUDA driver, TensorRT and the plugins, for C++ that opens those at run time: cpp/stand_in/.

Never loaded into a process of pytest, where cuda.bindings would find the driver: tests run programs that load them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulate import QUEUED, compile_kernels, kernel_sources
from native import ROOT, TOOLS, refuse_unless_here, run
from shared import compiled

SOURCES = ROOT / "tests" / "cpp" / "stand_in"
RUNTIME = ROOT / "runtime" / "cpp"
OLDEST_CUDA = 12080  # whose headers have SWITCH nodes
FLAGS = ["-std=c++17", "-O1", "-g", "-pthread", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]


@dataclass(frozen=True)
class StandIn:
    """The libraries, in one folder, under the names that they are looked for by: each finds the first beside it.

    Plans are ONNX files, for ONNX Runtime at DOVIT_STAND_IN_ONNXRUNTIME.
    """

    cuda: Path
    plugins: Path
    tensorrt: Path
    tensorrt_rtx: Path


def stand_in() -> StandIn:
    """The libraries, compiled where that has not been done yet. Skips where a tool is missing."""
    refuse_unless_here("g++")
    headers = _cuda_headers()
    sources = [*SOURCES.glob("*.*"), *RUNTIME.rglob("*.h"), RUNTIME / "onnxruntime" / "library.cpp", Path(__file__)]
    folder = compiled("stand-in", [*sources, *kernel_sources()], lambda folder: _build(_libraries(folder), headers))
    return _libraries(folder)


def _libraries(folder: Path) -> StandIn:
    names = ("libcuda.so.1", "libdovit_plugins.so", "libnvinfer.so.10", "libtensorrt_rtx.so.1")
    return StandIn(*(folder / name for name in names))


def _build(made: StandIn, headers: Path) -> None:
    folder, more = made.cuda.parent, ["-Wl,--no-undefined"]
    uses_cuda = [f"-L{folder}", f"-l:{made.cuda.name}", "-Wl,-rpath,$ORIGIN"]

    def link(out: Path) -> list[str]:
        return ["-shared", *more, f"-Wl,-soname,{out.name}", "-o", str(out)]

    run("g++", *FLAGS, "-isystem", headers, *sorted(SOURCES.glob("cuda_*.cpp")), *link(made.cuda))
    tensorrt = [
        *sorted(SOURCES.glob("tensorrt_*.cpp")),
        SOURCES / "onnx_plan.cpp",
        RUNTIME / "onnxruntime" / "library.cpp",
    ]
    includes = [f"-I{SOURCES}", f"-I{RUNTIME}"]
    run("g++", *FLAGS, *includes, *tensorrt, *uses_cuda, *link(made.tensorrt))
    run("g++", *FLAGS, "-DSTAND_IN_RTX", *includes, *tensorrt, *uses_cuda, *link(made.tensorrt_rtx))
    compile_kernels(
        "g++",
        folder,
        made.plugins,
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-include",
        str(SOURCES / "launch.h"),
        *more,
        *uses_cuda,
        f"-Wl,-soname,{made.plugins.name}",
        launch=QUEUED,
    )


def _cuda_headers() -> Path:
    """The folder of cuda.h. Skips where there is none that is new enough."""
    folders = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    nvcc = shutil.which("nvcc", path=TOOLS)
    if nvcc:  # which may be a script that calls the real one
        told = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True).stderr
        folders += [Path(top) for top in re.findall(r"TOP=(\S+)", told)]
    for folder in (*folders, Path("/usr/local/cuda")):
        header = folder / "include" / "cuda.h"
        if header.is_file() and (folder / "include" / "cudaTypedefs.h").is_file():
            found = re.search(r"#define CUDA_VERSION (\d+)", header.read_text())
            if found and int(found[1]) >= OLDEST_CUDA:
                return header.parent
    pytest.skip("no cuda.h of CUDA 12.8 or newer to build a stand-in for the driver with")
