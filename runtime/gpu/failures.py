"""What goes wrong on a GPU, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dovit.runtime.errors import DovitError


@contextmanager
def cuda_errors(what: str) -> Iterator[None]:
    """Turn the exceptions of cuda.core, which share no base but Exception, into one sentence that begins with `what`."""
    try:
        yield
    except DovitError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DovitError(f"{what}: {reason[:200]}") from None
