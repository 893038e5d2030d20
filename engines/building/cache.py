"""A cache of built plans on disk; the key is the hash of everything that a plan is built from.

`<key>.json` holds the builder's report and names the `<hash>.plan` that belongs to it. Both are written to a temporary file and
renamed, the key last, and a plan's name is its content's hash: so any number of exports may use one folder at the same time, and
a damaged or incomplete entry is a cache miss.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dovit.engines.building.request import BuildReport
from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.open import sha256
from dovit.runtime.cache_folder import cache_folder
from dovit.runtime.errors import DovitError
from dovit.runtime.files import atomic_write, link_or_copy


def default_cache() -> Path | None:
    """In the user's cache folder; None, which keeps nothing, where the user has none."""
    return cache_folder("plans")


class _Entry(Frozen):
    sha256: str
    report: BuildReport


class PlanCache:
    """A folder of plans. Without one (None) nothing is kept and nothing found."""

    def __init__(self, folder: Path | None) -> None:
        """Makes the folder; raises DovitError where that is not allowed."""
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DovitError(f"{folder}: cannot be made ({error.strerror}): give --cache another folder") from None

    def get(self, key: str, out: Path) -> tuple[BuildReport, str] | None:
        """Put the plan of `key` at `out` and return its report and SHA-256; None where there is none, or none intact."""
        if self.folder is None:
            return None
        try:
            entry = _Entry.model_validate_json((self.folder / f"{key}.json").read_bytes())
            plan = self.folder / f"{entry.sha256}.plan"
            if sha256(plan) != entry.sha256:
                return None
            link_or_copy(plan, out)
        except (OSError, ValidationError):
            return None
        return entry.report, entry.sha256

    def put(self, key: str, plan: Path, digest: str, report: BuildReport) -> None:
        """Keep `plan`. A full disk is no reason to lose what was built: then it is not kept."""
        if self.folder is None:
            return
        with suppress(DovitError):
            with atomic_write(self.folder / f"{digest}.plan") as part:
                shutil.copyfile(plan, part)
            with atomic_write(self.folder / f"{key}.json") as part:
                part.write_text(_Entry(sha256=digest, report=report).model_dump_json())
