"""A command called as typed, in this process, which has torch and shares the run's traces."""

from collections.abc import Callable

Typed = Callable[..., tuple[int, str, str]]  # module of the command, arguments → status, stdout, stderr
