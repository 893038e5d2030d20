"""Some hundreds of mutants of each boundary, always the same ones; `make fuzz` tries others for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.common import DRIVERS
from fuzz.run import describe, fuzz

HERE = [name for name in DRIVERS if Path(__file__).with_name(f"{name}.py").exists()]


@pytest.mark.parametrize("boundary", HERE)
def test_every_mutant_is_read_or_refused(boundary: str) -> None:
    report = fuzz(boundary, count=300, seconds=10)
    assert not report.findings, describe(report, 0, 10)
    assert report.count >= 10
    assert len(report.outcomes) > 1, "all mutants end alike: does the driver reach the code under test?"
