"""How plans are to be built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dovit.engines.building.cache import default_cache
from dovit.engines.flavours import FLAVOURS
from dovit.runtime.bundle.plans import Flavour, Precision
from dovit.runtime.errors import UsageError


@dataclass(frozen=True)
class BuildOptions:
    """One flavour and precision. What is None is the flavour's own choice."""

    flavour: Flavour
    precision: Precision = "fp16"
    batch: int = 1
    profiles: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimisation_level: int | None = None
    timing_cache: Path | None = None
    plugins: bool = False  # the token pass inside the plans, for programs that run them without dovit's chain
    cache: Path | None = field(default_factory=default_cache)
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for options that no builder supports."""
        facts = FLAVOURS[self.flavour]
        if self.timing_cache and not facts.timing_cache:
            raise UsageError(
                f"--timing-cache is for TensorRT: {facts.title} times nothing when it builds, and has no use for it"
            )
        if self.plugins and not facts.plugins:
            raise UsageError(f"--plugins is for TensorRT: {facts.title} has no plugins, and its plans need none")
        for flag, value, least in (
            ("--batch", self.batch, 1),
            ("--workspace", self.workspace_mib, 1),
            ("--jobs", self.jobs, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{flag} {value}: give {least} or more")
        if self.optimisation_level is not None and not 0 <= self.optimisation_level <= 5:
            raise UsageError(f"--optimisation-level {self.optimisation_level}: give 0 to 5, as trtexec takes it")
