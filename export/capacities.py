"""The kept counts for which engines are prepared (`bucketed` schedule)."""

from __future__ import annotations

from dovit.runtime.errors import UsageError


def default_capacities(tokens: int) -> tuple[int, ...]:
    """0, N/64, N/32, and the sixteenths of N, rounded up: on average N/32 tokens more than needed are kept.

    The sixteenths bound the cost that a filled-up image pays; the two small ones serve images with almost nothing left.
    """
    parts = [tokens / 64, tokens / 32, *(tokens * k / 16 for k in range(1, 17))]
    return tuple(sorted({0, *(-int(-part // 1) for part in parts)}))


def check_capacities(capacities: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """`capacities` sorted, with 0 and N. Raises UsageError for one outside 0…N."""
    for capacity in capacities:
        if not 0 <= capacity <= tokens:
            raise UsageError(
                f"capacity {capacity} lies outside 0…{tokens}, the tokens of this model at this image size"
            )
    return tuple(sorted({0, tokens, *capacities}))
