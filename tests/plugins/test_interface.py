"""The plugins driven through TensorRT's interfaces by the programs in interface/, under sanitizers, with no TensorRT there."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from dovit import plugins

ROOT = Path(__file__).parents[2]
# where pip puts cmake, ctest and ninja
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": TOOLS}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")
@pytest.mark.skipif(shutil.which("cmake", path=TOOLS) is None, reason="no cmake")
def test_interface() -> None:
    run("cmake", "--preset", "sanitize")
    run("cmake", "--build", "--preset", "sanitize")
    told = run("ctest", "--preset", "sanitize")
    assert "100% tests passed" in told and told.count("Passed") >= 3  # the fourth wants a GPU
