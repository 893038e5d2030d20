"""The two errors a user meets: each carries one sentence that says what is wrong and how to mend it."""

from __future__ import annotations


class DovitError(Exception):
    """Something failed: the commands print the message as one line and exit with status 1."""

    exit_status = 1


class UsageError(DovitError):
    """The request itself cannot be right (a wrong flag, size or number): exit status 2."""

    exit_status = 2
