"""Fixtures for the tests of the chain on a GPU."""

from __future__ import annotations

from functools import cache

import pytest
from lowered import Lowered, Maker, lowered


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes a lowered bundle of a kind, once."""

    @cache
    def build(
        decoder: str = "setr-naive", head: str = "conv", prefix: int = 1, batch: int = 1, family: str | None = None
    ) -> Lowered:
        return lowered(tmp_path_factory.mktemp("lowered"), decoder, head, prefix, batch, family)

    return build
