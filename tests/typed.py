"""A command called as typed, in this process, which has torch and shares the run's traces: the first export of a process takes
ten seconds longer."""

from collections.abc import Callable
from typing import Any

import pytest

Typed = Callable[..., tuple[int, str, str]]  # module of the command, arguments → status, stdout, stderr


def call(module: Any, *arguments: object) -> int:
    """The exit status of the command whose `main` is in `module`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            module.main()
    return int(end.value.code or 0)
