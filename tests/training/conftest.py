"""The checkpoint that runs start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import randomised
from street_runs import street_config

from dovit.export.checkpoints import save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "model.pth"
    save_model(randomised(street_config()), path)
    return path
