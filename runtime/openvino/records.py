"""What was measured once for a bundle on this CPU, kept as JSON in the user's cache folder.

accuracy.py and speed.py measure. The C++ runtime reads the same files (runtime/cpp/openvino/records.cpp): their names are made in
the same way there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.manifest import MANIFEST_NAME
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.cache_folder import cache_folder
from dovit.runtime.openvino.device import build

LOG = logging.getLogger("dovit")
R = TypeVar("R", bound=Frozen)
# how the lines of /proc/cpuinfo begin that name a processor and its instructions: on x86, and on Arm
PROCESSOR = ("model name", "flags", "CPU implementer", "CPU variant", "CPU part", "Features")


def records_folder() -> Path | None:
    """None where the user has none: then nothing is kept."""
    return cache_folder("openvino")


def manifest_hash(bundle: Bundle) -> str:
    """SHA-256 of its manifest, which has the hashes of its files and ξ."""
    return hashlib.sha256((bundle.root / MANIFEST_NAME).read_bytes()).hexdigest()


def record_file(kind: str, measurement: int, manifest: str, *about: object) -> Path | None:
    """Where a record is kept; None where none is. Its name is a hash of all that the figures depend on: how they are measured,
    the manifest's hash, OpenVINO, the processor, and `about`."""
    folder = records_folder()
    if folder is None:
        return None
    parts = "\n".join(map(str, (measurement, manifest, build(), processor(), *about)))
    return folder / f"{kind}-{hashlib.sha256(parts.encode()).hexdigest()[:32]}.json"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the system says of it: its name and instructions. Empty where it says nothing."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(PROCESSOR)}))


def read_record(file: Path | None, kind: type[R]) -> R | None:
    """None where there is none, or one that is damaged."""
    if file is None:
        return None
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        LOG.debug("%s: cannot be used (%s)", file, error)
        return None


def can_keep() -> bool:
    """Whether records can be written."""
    folder = records_folder()
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def keep_record(file: Path | None, record: R) -> R:
    """Write it, and return what is in the file then: another process's record where that one was earlier, so that all take the
    same. Where it cannot be written it is returned as it is."""
    if file is None:
        LOG.debug("the user has no home to keep a record in, so the next load measures again (set XDG_CACHE_HOME)")
        return record
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(record.model_dump_json())
            try:
                os.link(name, file)
            except OSError:  # it exists, or there are no hard links here
                if (other := read_record(file, type(record))) is not None:
                    return other
                os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        LOG.debug("%s: cannot be written, so the next load measures again (%s)", file, error)
    return record
