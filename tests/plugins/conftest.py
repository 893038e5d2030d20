import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "plugins" / "kernels"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=undefined,bounds",
    "-fno-sanitize-recover=all",
    "-static-libubsan",
]


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ctypes.CDLL]:
    """Compiles one of the host_*.cpp beside this file, which run the kernels' own source in loops, and loads it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the kernels' logic with")

    def build(name: str) -> ctypes.CDLL:
        out = tmp_path_factory.mktemp("host") / f"lib{name}.so"
        subprocess.run([str(compiler), *FLAGS, f"-I{KERNELS}", str(HERE / f"{name}.cpp"), "-o", str(out)], check=True)
        return ctypes.CDLL(str(out))

    return build
