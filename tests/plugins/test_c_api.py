"""The library that other languages load: its names, and that it needs nothing that only some machines have."""

import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
NVCC = shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None or shutil.which("nm") is None, reason="no nvcc or nm")
def test_names(tmp_path: Path) -> None:
    out = tmp_path / "libkernels.so"
    sources = [str(path) for path in sorted([*KERNELS.glob("*.cu"), *KERNELS.glob("*.cpp")])]
    options = ["-std=c++17", "-arch=sm_80", "-shared", "-Werror", "all-warnings", "-Xcompiler",
               "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror", "-Xlinker", "--no-undefined"]  # fmt: skip
    done = subprocess.run([str(NVCC), *options, *sources, "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = subprocess.run(["nm", "-D", "--defined-only", str(out)], capture_output=True, text=True, check=True).stdout
    defined = {line.split()[-1] for line in names.splitlines()}
    wanted = {
        "confidence",
        "decide",
        "gather",
        "gather_scratch_bytes",
        "labels",
        "normalise",
        "reconstruct",
        "resize",
        "resize_taps",
        "slots",
    }
    assert {name for name in defined if name.startswith("dovit_")} == {f"dovit_{name}" for name in wanted}
    assert not any("dovit" in name for name in defined if not name.startswith("dovit_"))  # C++ stays inside
