"""Nothing is written outside the output folder, not even by the libraries underneath."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from models import randomised, small_config
from PIL import Image

from dovit.export.checkpoints import save_model


def test_a_fresh_home_stays_empty(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry puts an identifier and a data base into ~/.cache, unless it is turned off before its import."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(), work.mkdir()
    save_model(randomised(small_config()), work / "model.pth")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(work / "image.png")
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(home), "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()

    def dovit(module: str, *arguments: str) -> None:
        command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    dovit("dovit.export.cli", "--ckpt", "model.pth", "--out", "engines", "--backend", "onnxruntime")
    dovit("dovit.runtime.cli.run", "--engine", "engines", "image.png", "--overlay")
    dovit("dovit.runtime.cli.inspect", "engines")
    left = [
        str(path.relative_to(tmp_path))
        for place in (home, tmp_path / "temporary")
        for path in place.rglob("*")
        if path.is_file()
    ]
    assert not left  # torch leaves an empty folder in the folder for temporary files
    assert not [path.name for path in work.iterdir() if path.name.startswith(".")]
