"""Plans against ONNX Runtime. What needs a GPU is skipped without one; the comparison itself is tested on any machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from installed import require
from models import randomised, small_config
from native import skip_unless_rtx_runs

from dovit.engines.add import Added, plan_builder
from dovit.engines.options import BuildOptions
from dovit.export.run import add_plans
from dovit.runtime.bundle.plans import Precision

require("tensorrt_rtx")
COUNTS = [1, 2, 111, 512, 989, 1024]  # awkward ones, and all tokens of 512×512


def engines(folder: Path, precision: Precision, size: int) -> Path:
    make_bundle(randomised(small_config(image_size=(size, size))), folder)
    add_plans(folder, folder, plan_builder(BuildOptions("tensorrt-rtx", precision, cache=None), None, Added()))
    return folder


def compared(folder: Path, who: str, counts: list[int]) -> list[dict[str, Any]]:
    """In a process of its own: Polygraphy must know the flavour when it is imported, and its sessions need their own threads."""
    script = Path(__file__).parents[1] / "plan_parity.py"
    command = [sys.executable, str(script), str(folder), who, *map(str, counts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"plan"')]


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("fp16", 5e-3)])
def test_plans_compute_what_onnx_runtime_computes(precision: Precision, bound: float, tmp_path: Path) -> None:
    skip_unless_rtx_runs()
    found = compared(engines(tmp_path, precision, 512), "tensorrt-rtx", COUNTS)
    assert {(line["plan"], line["tokens"]) for line in found} >= {("block2", count) for count in COUNTS}
    assert all(line["difference"] < bound for line in found), found


def test_the_harness(tmp_path: Path) -> None:
    """With ONNX Runtime in place of the plans there is no difference; with changed weights there is one in every plan."""
    folder = engines(tmp_path, "fp16", 64)
    found = compared(folder, "same", [1, 7, 16])
    assert {line["tokens"] for line in found if line["plan"] == "block2"} == {1, 7, 16} and len(found) == 8
    assert all(line["difference"] == 0 for line in found)
    assert all(line["difference"] > 0.01 for line in compared(folder, "spoiled", [1, 7, 16]))
