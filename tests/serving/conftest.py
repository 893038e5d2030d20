from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import shared
from bundles import make_bundle
from models import randomised, small_config

from dovit.benchmarks import triton_server
from dovit.runtime.errors import DovitError
from dovit.runtime.loading import load
from dovit.runtime.session import Session


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(small_config(image_size=(96, 128))), folder)
    return folder


@pytest.fixture(scope="package")
def plain_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without decisions."""
    folder = tmp_path_factory.mktemp("plain")
    make_bundle(randomised(small_config(layers=(), image_size=(96, 128))), folder)
    return folder


@pytest.fixture(scope="package")
def session(bundle: Path) -> Iterator[Session]:
    with load(bundle, threads=1) as session:
        yield session


@pytest.fixture(scope="package")
def installed() -> Path:
    """A tritonserver: unpacked once, and kept for later runs."""
    try:
        return shared.compiled("tritonserver", [Path(triton_server.__file__)], triton_server.install_server)
    except DovitError as error:
        pytest.skip(str(error))
