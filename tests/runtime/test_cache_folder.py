"""Where the user's caches lie, and what goes without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_homes import ENVIRONMENTS, home_in_passwd, set_home, without_home

from dovit.engines.building.cache import PlanCache
from dovit.engines.options import BuildOptions
from dovit.runtime.cache_folder import cache_folder
from dovit.runtime.gpu.runtime_cache import cache_file
from dovit.runtime.openvino import records
from dovit.runtime.openvino.speed import known_speeds


@pytest.mark.parametrize(("variables", "folder"), ENVIRONMENTS)
def test_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str | None) -> None:
    set_home(monkeypatch, variables)
    expected = Path(folder or f"{home_in_passwd()}/.cache") / "dovit"
    assert cache_folder("plans") == BuildOptions("tensorrt-rtx").cache == expected / "plans"
    assert records.records_folder() == expected / "openvino"
    file = cache_file("tensorrt-rtx", "1.7", "GPU", "8.9")
    assert file is not None and file.parent == expected / "kernels"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_home(monkeypatch)
    options = BuildOptions("tensorrt-rtx")
    assert options.cache is None and PlanCache(options.cache).get("key", Path("plan")) is None
    assert cache_file("tensorrt-rtx", "1.7", "GPU", "8.9") is None
    assert records.record_file("bf16", 1, "m") is None and not records.can_keep() and known_speeds() == []
