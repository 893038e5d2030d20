"""Every kernel compiles for every architecture, without a warning, a spill or more shared memory than a block may have."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
NVCC = shutil.which("nvcc")
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("source", sorted(KERNELS.glob("*.cu")), ids=lambda path: path.stem)
def test_compiles(source: Path, tmp_path: Path) -> None:
    known = subprocess.run([str(NVCC), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    wanted = [a for a in ARCHITECTURES if f"compute_{a}" in known]
    assert len(wanted) >= 5, known
    command = [
        str(NVCC),
        "-std=c++17",
        "-Xptxas",
        "-v",
        "-Werror",
        "all-warnings",
        "-Xcompiler",
        "-Wall,-Wextra,-Werror",
    ]
    command += [f"-gencode=arch=compute_{a},code=[sm_{a},compute_{a}]" for a in wanted]
    done = subprocess.run(
        [*command, "--threads", "2", "-c", str(source), "-o", str(tmp_path / "out.o")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    frames = [tuple(map(int, found)) for found in SPILLS.findall(done.stderr)]
    registers = [int(found) for found in USED.findall(done.stderr)]
    kernels = len(re.findall(r"__global__", source.read_text()))
    assert len(registers) == len(frames) >= kernels * len(wanted)
    assert set(frames) == {(0, 0, 0)} and max(registers) <= 64  # 1024 threads of 64 fill a multiprocessor
