"""The kept counts for which engines are prepared (`bucketed` schedule)."""

from __future__ import annotations

from dovit.runtime.errors import UsageError


def default_capacities(tokens: int) -> tuple[int, ...]:
    """0, N/16, the eighths of N but for 7/8, and N, rounded up.

    Where every kept count is as likely as any other, 0.074·N tokens more than needed are kept on average. On a GPU every
    capacity costs a TensorRT context, kernels compiled for its shape and a captured body for each decision, so the default
    has few; `dovit-calibrate` finds those that fit given images.
    """
    parts = [tokens * k / 16 for k in (1, 2, 4, 6, 8, 10, 12, 16)]
    return tuple(sorted({0, *(-int(-part // 1) for part in parts)}))


def check_capacities(capacities: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """`capacities` sorted, with 0 and N. Raises UsageError for one outside 0…N."""
    for capacity in capacities:
        if not 0 <= capacity <= tokens:
            raise UsageError(
                f"capacity {capacity} lies outside 0…{tokens}, the tokens of this model at this image size"
            )
    return tuple(sorted({0, tokens, *capacities}))
