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
from emulate import QUEUED, compile_kernels, kernel_sources, together
from native import ROOT, TOOLS, run, skip_unless_installed
from shared import COMPILED, compiled, locked

SOURCES = ROOT / "tests" / "cpp" / "stand_in"
RUNTIME = ROOT / "runtime" / "cpp"
OLDEST_CUDA = 12080  # whose headers have SWITCH nodes
FLAGS = ["-std=c++17", "-O1", "-g1", "-pthread", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]


@dataclass(frozen=True)
class StandIn:
    """The libraries, in one folder, under the names that they are looked for by: each finds the first beside it.

    Plans are ONNX files, for ONNX Runtime at DOVIT_STAND_IN_ONNXRUNTIME.
    """

    cuda: Path
    plugins: Path
    tensorrt: Path | None  # None where the headers of TensorRT 10 are not at hand
    tensorrt11: Path
    tensorrt_rtx: Path


def stand_in() -> StandIn:
    """The libraries, compiled where that has not been done yet. Skips where a tool is missing."""
    skip_unless_installed("g++")
    headers = _cuda_headers()
    tensorrt10 = tensorrt_headers()
    sources = [*SOURCES.glob("*.*"), *RUNTIME.rglob("*.h"), RUNTIME / "onnxruntime" / "library.cpp", Path(__file__)]
    folder = compiled(
        "stand-in",
        [*sources, *kernel_sources()],
        lambda folder: _build(folder, headers, tensorrt10),
        "" if tensorrt10 is None else "with TensorRT 10",
    )
    return StandIn(
        cuda=folder / "libcuda.so.1",
        plugins=folder / "libdovit_plugins.so",
        tensorrt=folder / "libnvinfer.so.10" if tensorrt10 else None,
        tensorrt11=folder / "libnvinfer.so.11",
        tensorrt_rtx=folder / "libtensorrt_rtx.so.1",
    )


def _build(folder: Path, headers: Path, tensorrt10: Path | None) -> None:
    cuda, more = folder / "libcuda.so.1", ["-Wl,--no-undefined"]
    uses_cuda = [f"-L{folder}", f"-l:{cuda.name}", "-Wl,-rpath,$ORIGIN"]

    def link(name: str) -> list[str]:
        return ["-shared", *more, f"-Wl,-soname,{name}", "-o", str(folder / name)]

    driver = together(folder / "cuda.cc", *sorted(SOURCES.glob("cuda_*.cpp")))
    run("g++", *FLAGS, "-isystem", headers, driver, *link(cuda.name))
    tensorrt = together(
        folder / "tensorrt.cc",
        *sorted(SOURCES.glob("tensorrt_*.cpp")),
        SOURCES / "onnx_plan.cpp",
        RUNTIME / "onnxruntime" / "library.cpp",
    )
    includes = [f"-I{SOURCES}", f"-I{RUNTIME}"]
    declarations = ["-isystem", RUNTIME / "tensorrt" / "declarations"]
    if tensorrt10:
        theirs = ["-isystem", tensorrt10, "-isystem", headers]
        run("g++", *FLAGS, *includes, *theirs, tensorrt, *uses_cuda, *link("libnvinfer.so.10"))
    for define, name in (("STAND_IN_TENSORRT11", "libnvinfer.so.11"), ("STAND_IN_RTX", "libtensorrt_rtx.so.1")):
        run("g++", *FLAGS, f"-D{define}", *includes, *declarations, tensorrt, *uses_cuda, *link(name))
    plugins = folder / "libdovit_plugins.so"
    compile_kernels(
        "g++",
        folder,
        plugins,
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-include",
        str(SOURCES / "launch.h"),
        *more,
        *uses_cuda,
        f"-Wl,-soname,{plugins.name}",
        launch=QUEUED,
    )


def tensorrt_headers() -> Path | None:
    """TensorRT 10's, as the build finds them; what it downloads is kept in build/tests."""
    skip_unless_installed("cmake")
    COMPILED.mkdir(parents=True, exist_ok=True)
    with locked(COMPILED / ".tensorrt-headers.lock"):
        script, found = COMPILED / "tensorrt-headers.cmake", COMPILED / "tensorrt-headers.txt"
        script.write_text(
            f'include("{ROOT / "cmake" / "TensorRTHeaders.cmake"}")\n'
            "dovit_find_tensorrt_headers(folder version problem 10)\n"
            f'file(WRITE "{found}" "${{folder}}")\n'
        )
        subprocess.run(["cmake", "-P", script], cwd=COMPILED, env=os.environ | {"PATH": TOOLS}, check=True)
        folder = found.read_text()
    return Path(folder) if folder else None


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
