"""What the tests of videos share: a video, and dovit-run on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dovit.runtime.cli import run
from dovit.runtime.session import Session


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from videos import make_video  # here: where av is missing the tests say so

    return make_video(tmp_path_factory.mktemp("video") / "drive.mp4", movflags="+faststart")


@pytest.fixture
def dovit(
    session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """dovit-run into tmp_path/out: status, stdout, stderr."""
    monkeypatch.setattr(run, "load", lambda *_, **__: session)

    def command(*arguments: object) -> tuple[int, str, str]:
        line = ["dovit-run", "--engine", "e", "--out", str(tmp_path / "out"), *map(str, arguments)]
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as end:
            run.main()
        output = capfd.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return command
