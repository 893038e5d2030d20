"""What a build worker is asked, and what it answers: one JSON line each."""

from __future__ import annotations

from typing import Literal

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.plans import Flavour

Shape = tuple[int, ...]


class BuildRequest(Frozen):
    """One plan to build. Paths are absolute."""

    name: str
    flavour: Flavour
    onnx: str
    out: str
    profiles: tuple[dict[str, tuple[Shape, Shape, Shape]], ...] = ()
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimisation_level: int | None = None
    timing_cache: str | None = None
    plugin_library: str | None = None
    user_allocation: bool = (
        True  # REQUIRE_USER_ALLOCATION, where the flavour has it: a plan that allocates cannot be captured
    )


class BuildReport(Frozen):
    """What a worker says: how far it is (`fraction`), or that it is done, or why it failed (`error`)."""

    kind: Literal["progress", "done", "failed"]
    fraction: float = 0.0
    error: str = ""
    network_layers: int = 0
    layers: tuple[str, ...] = ()
    attentions: int = 0
    fused_attentions: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    user_allocation: bool = False  # whether that flag was set
