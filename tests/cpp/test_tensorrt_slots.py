"""The numbers of TensorRT-RTX's functions in tensorrt/slots.h are those that its own Python package was compiled with."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from native import ROOT, run

SLOTS = ROOT / "runtime" / "cpp" / "tensorrt" / "slots.h"
ENGINE = ROOT / "runtime" / "cpp" / "tensorrt" / "engine.cpp"


def test_tensorrt_rtx() -> None:
    pytest.importorskip("tensorrt_rtx")
    expected = json.loads(run(sys.executable, Path(__file__).with_name("rtx_slots.py")))
    source = SLOTS.read_text()
    fields = re.search(r"struct Slots \{(.*?)\n\};", source, re.DOTALL)
    numbers = re.search(r"kTensorRtRtx1\{(.*?)\}", source)
    assert fields and numbers
    names = [name for line in re.findall(r"^ *int (.*?);", fields[1], re.MULTILINE) for name in line.split(", ")]
    found = dict(zip(names, map(int, numbers[1].split(",")), strict=True))
    del found["log"]  # a function of ours, which tensorrt_library.cpp has the library call
    for name, constant in [("user_managed", "kUserManaged"), ("eager", "kEager")]:
        found[name] = int(re.findall(rf"{constant} = (\d+);", ENGINE.read_text())[0])
    assert found == expected
