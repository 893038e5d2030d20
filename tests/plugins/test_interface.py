"""The plugins called through TensorRT's interfaces by the programs in interface/, under sanitizers, without TensorRT."""

import shutil

import pytest
from native import ROOT, TOOLS, run

from dovit import plugins

BUILD = ROOT / "build" / "sanitize"


@pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")
@pytest.mark.skipif(shutil.which("cmake", path=TOOLS) is None, reason="no cmake")
def test_interface() -> None:
    run("cmake", "--preset", "sanitize", "-S", ROOT)
    run("cmake", "--build", BUILD)
    told = run("ctest", "--test-dir", BUILD, "--output-on-failure")
    assert "100% tests passed" in told and told.count("Passed") >= 3  # the fourth needs a GPU
