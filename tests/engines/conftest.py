from pathlib import Path

import pytest
from bundles import make_bundle
from models import randomised, small_config

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SETR-Naive with two decisions; tests must leave it as it is."""
    folder: Path = tmp_path_factory.mktemp("small")
    make_bundle(randomised(small_config()), folder, (0, 8, 16, 24))
    return open_bundle(folder)


@pytest.fixture(scope="session")
def small_manifest(small_bundle: Bundle) -> Manifest:
    return small_bundle.manifest
