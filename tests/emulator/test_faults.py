"""A kernel that would hang or could not be launched ends the emulation with a sentence; one without a fault does not."""

import shutil
import subprocess
from pathlib import Path

import pytest
from emulate import FLAGS, HERE, rewritten

SHUFFLE, BARRIER, BLOCK, GRID = "a shuffle waits", "a barrier waits", "a block must be", "no such grid"
FAULTS = {
    "none": None,
    "shuffle after return": SHUFFLE,
    "shuffle without a lane": SHUFFLE,
    "shuffle beside a barrier": SHUFFLE,
    "barrier after return": BARRIER,
    "barrier after a warp's return": BARRIER,
    "one more barrier": BARRIER,
    "part of a warp": BLOCK,
    "large block": BLOCK,
    "empty grid": GRID,
    "high grid": GRID,
}


@pytest.mark.parametrize("stacks", ["own", "ucontext"])
def test_faults(stacks: str, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to emulate a GPU with")
    source, program = tmp_path / "faults.cpp", tmp_path / "faults"
    source.write_text(rewritten((HERE / "faults.cpp").read_text()))
    more = ["-DEMULATOR_UCONTEXT"] if stacks == "ucontext" else []  # as on machines other than x86-64
    subprocess.run(["g++", *FLAGS, *more, str(source), "-o", str(program)], check=True)
    for fault, sentence in FAULTS.items():
        done = subprocess.run([program, fault], capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) == (sentence is None), fault
        assert (sentence or "") in done.stderr, fault
