"""What TensorRT-RTX compiles for a shape when it first sees it: kept for all contexts of this process, and on disk for the next.

TensorRT-RTX checks by itself that a file is of this version, GPU and driver, and takes no other. The folder holds code: it is the
user's own, as ~/.cache is.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from dovit.runtime.cache_folder import cache_folder
from dovit.runtime.errors import DovitError
from dovit.runtime.files import atomic_write

LOG = logging.getLogger("dovit.runtime.gpu")


def cache_file(flavour: str, version: str, gpu: str, capability: str) -> Path | None:
    """In the user's cache folder, beside the cache of plans; None where the user has none."""
    folder = cache_folder("kernels")
    if folder is None:
        return None
    name = "-".join(re.sub(r"[^\w.-]+", "_", part) for part in (flavour, version, gpu, capability))
    return folder / f"{name}.cache"


class RuntimeCache:
    """One IRuntimeCache, which has to live as long as every context that it was given to."""

    def __init__(self, file: Path | None) -> None:
        """`file`: where it is kept; None: nowhere."""
        self._file = file
        self._cache: Any = None
        self._saved = ""

    def attach(self, settings: Any) -> None:
        """Have contexts made with these settings, an IRuntimeConfig, use the cache; read from the file at the first call."""
        if self._cache is None:
            self._cache = settings.create_runtime_cache()
            self._read()
        if not settings.set_runtime_cache(self._cache):
            LOG.warning("TensorRT-RTX takes no runtime cache: every context compiles its kernels anew")

    def save(self) -> None:
        """Write the file where there is something new. What cannot be written is compiled again next time."""
        if self._cache is None or self._file is None:
            return
        content = bytes(self._cache.serialize())
        digest = hashlib.sha256(content).hexdigest()
        if digest == self._saved:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file) as part:
                part.write_bytes(content)
        except (OSError, DovitError) as error:
            LOG.warning("%s: compiled kernels are not kept (%s)", self._file, error)
            return
        self._saved = digest
        LOG.info("%s: %d bytes of compiled kernels are kept", self._file, len(content))

    def _read(self) -> None:
        if self._file is None:
            return
        try:
            content = self._file.read_bytes()
        except OSError:  # the first time, mostly
            return
        if self._cache.deserialize(content):
            self._saved = hashlib.sha256(content).hexdigest()
        else:
            LOG.info("%s: of another version, GPU or driver: made anew", self._file)
