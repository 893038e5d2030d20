"""Token counts that plans are prepared for."""

from __future__ import annotations

from collections.abc import Sequence

from dovit.runtime.bundle.dimensions import decided_dims, kept_dims
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep, Profile
from dovit.runtime.errors import UsageError


def split_profiles(capacities: Sequence[int], tokens: int, count: int) -> tuple[Profile, ...]:
    """`count` profiles that cover 1…`tokens` without a gap, each with about as many of `capacities` in it, best at its largest.

    The largest, because that is where most of the time goes. Raises UsageError for a count below 1 or more than there are
    capacities.
    """
    largest = sorted({c for c in capacities if c > 0} | {tokens})
    if not 1 <= count <= len(largest):
        raise UsageError(f"--profiles {count}: give 1 to {len(largest)}, the number of capacities above 0")
    ends = [largest[len(largest) * (k + 1) // count - 1] for k in range(count)]
    return tuple(
        Profile(least=before + 1, best=end, most=end) for before, end in zip([0, *ends[:-1]], ends, strict=True)
    )


def is_dynamic(step: PlanStep) -> bool:
    """Whether a number of tokens is among the step's sizes."""
    return any(isinstance(size, str) for spec in (*step.inputs, *step.outputs) for size in spec.shape)


def profile_shapes(
    manifest: Manifest, step: PlanStep, profile: Profile
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """TensorRT's (min, opt, max) shape of each input of `step`, static ones as well, when it runs on so many tokens.

    Where a plan holds the gather as well, more tokens come in than it runs on, up to all of them.
    """
    decided = decided_dims(manifest)
    names = {size for spec in step.inputs for size in spec.shape if isinstance(size, str)}
    own = max((decided[name][0] for name in names if name in decided), default=0)
    counts = range(1, len(manifest.decisions) + 1)

    def dims(kept: int, before: int) -> dict[str, int]:
        sizes: dict[str, int] = {"capacities": len(manifest.capacities)}
        for number in counts:
            sizes |= kept_dims(manifest, number, kept if number >= own else before)
        return sizes

    least, best = dims(profile.least, profile.least), dims(profile.best, profile.best)
    most = dims(profile.most, manifest.tokens)
    return {spec.name: (spec.resolve(least), spec.resolve(best), spec.resolve(most)) for spec in step.inputs}
