"""The process that builds plans: `python -m dovit.engines.building.worker FLAVOUR`.

BuildRequests come in, a line each, and BuildReports go out.

A process of its own, because Polygraphy serves one flavour a process, because a builder that meets something it cannot
take may end the process it runs in, and because several can then work side by side.
"""

from __future__ import annotations

import errno
import os
import sys

from dovit.engines.building.build_log import BuildLog
from dovit.engines.building.request import BuildReport, BuildRequest
from dovit.runtime.errors import clipped


def main() -> None:
    """Serve requests until there are no more."""
    # what a library prints goes to stderr: stdout is for reports
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(sys.argv[1] == "tensorrt-rtx"))
    from dovit.engines.building.builder import build_plan  # reads that variable

    def report(message: BuildReport) -> None:
        print(message.model_dump_json(), file=reports, flush=True)

    for line in sys.stdin:
        request = BuildRequest.model_validate_json(line)
        log = BuildLog()
        try:
            report(build_plan(request, log, report))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the disk is full; free some space and export again" if full else str(error)
            report(BuildReport(kind="failed", error=what))
        except Exception as error:  # Polygraphy's, TensorRT's and pybind's own
            what = log.reason if log.errors else clipped(" ".join(str(error).split()), 400) or type(error).__name__
            report(BuildReport(kind="failed", error=what))


if __name__ == "__main__":
    main()
