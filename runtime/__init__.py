"""Running a bundle: needs neither torch nor onnx, and does not know how the bundle was made."""

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result
from dovit.runtime.session import Session, load

__all__ = ["DovitError", "Result", "Session", "UsageError", "load"]
