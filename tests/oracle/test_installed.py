"""Tests of what is not installed are skipped; what is installed and cannot be imported is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed import require


def test_absent_is_skipped_and_broken_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dovit_broken.py").write_text("import dovit_absent")
    with pytest.raises(pytest.skip.Exception, match="not installed: dovit_absent"):
        require("dovit_absent")
    with pytest.raises(ModuleNotFoundError, match="dovit_absent"):
        require("dovit_broken")
