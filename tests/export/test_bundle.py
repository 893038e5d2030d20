"""Writing a bundle is atomic: at any time it is complete or as it was before."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import make_bundle
from models import randomised, small_config

from dovit.export.capacities import check_capacities, default_capacities
from dovit.export.checkpoints import save_model
from dovit.export.run import export
from dovit.export.verify import verify
from dovit.runtime.bundle.manifest import SCHEMA_VERSION, Manifest
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.write import STAGE_PREFIX, write_bundle
from dovit.runtime.errors import DovitError, UsageError


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_new_bundle_replaces_the_old_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("mine")
    make_bundle(randomised(small_config(), seed=1), tmp_path)
    old = content(tmp_path)
    manifest = make_bundle(randomised(small_config(), seed=2), tmp_path)
    new = content(tmp_path)
    assert set(new) == {"__init__.py", "bundle.json", *manifest.files}
    assert new["__init__.py"] == b"mine" and new["bundle.json"] != old["bundle.json"]
    open_bundle(tmp_path)


@pytest.mark.parametrize("stage", ["fill", "check", "replace"])
def test_a_failure_leaves_the_old_bundle(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(randomised(small_config(), seed=1), tmp_path)
    before = content(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if stage == "fill":
        monkeypatch.setattr("dovit.export.build.save_step", full)
    elif stage == "replace":
        real = os.replace
        monkeypatch.setattr(
            "dovit.runtime.bundle.write.os.replace", lambda a, b: full() if "bundle.json" in str(b) else real(a, b)
        )
    from dovit.export.build import build

    model = randomised(small_config(), seed=2)

    def fill(folder: Path) -> Manifest:
        manifest = build(model, default_capacities(24), folder, lambda _: None)
        if stage == "check":
            full()
        return manifest

    with pytest.raises(DovitError, match="the disk is full"):
        write_bundle(tmp_path, fill)
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not any(name.startswith(".dovit") for name in after)
    open_bundle(tmp_path)


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    model = randomised(small_config())
    (tmp_path / "file").write_text("x")
    with pytest.raises(DovitError, match="is a file"):
        make_bundle(model, tmp_path / "file")
    with pytest.raises(DovitError, match="is a file"):
        make_bundle(model, tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "x"


def test_a_failed_first_export_leaves_no_folder(tmp_path: Path) -> None:
    def fails(stage: Path) -> Manifest:
        (stage / "half").write_text("x")
        raise DovitError("no")

    with pytest.raises(DovitError, match="no"):
        write_bundle(tmp_path / "a" / "b", fails)
    assert not (tmp_path / "a").exists()


def test_verification_fails_a_wrong_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose weights were changed on the way must not become a bundle."""
    save_model(randomised(small_config()), tmp_path / "model.pth")
    export(tmp_path / "model.pth", tmp_path / "engines", {}, None, None)
    before = content(tmp_path / "engines")
    from dovit.export.graph import assemble as module

    real = module.weights_of

    def spoiled(part: torch.nn.Module) -> dict[str, torch.Tensor]:
        weights = real(part)
        return {name: t * 1.01 if name.endswith("fc2.weight") else t for name, t in weights.items()}

    monkeypatch.setattr(module, "weights_of", spoiled)
    with pytest.raises(DovitError, match=r"verification failed.*no bundle was written"):
        export(tmp_path / "model.pth", tmp_path / "engines", {}, None, None, force=True)
    assert content(tmp_path / "engines") == before


def test_verification_compares_corrected_tokens(tmp_path: Path) -> None:
    """A correction is part of the block whose tokens it changes, and one that differs is found."""
    model = randomised(small_config("segmenter-linear", 1, "corrected"))
    make_bundle(model, tmp_path / "engines")
    passes = verify(tmp_path / "engines", lambda: model, lambda _: None)
    assert any(0 < one.kept[0] < model.config.tokens for one in passes) and all(one.ok for one in passes)
    with torch.no_grad():
        model.corrections[1].linear.weight.mul_(1.1)
    with pytest.raises(DovitError, match=r"verification failed at .*: step block3"):
        verify(tmp_path / "engines", lambda: model, lambda _: None)


def test_verification_runs_with_the_cpu_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(small_config())
    make_bundle(model, tmp_path / "engines")
    monkeypatch.setenv("DOVIT_PROVIDER", "openvino")
    assert all(one.ok for one in verify(tmp_path / "engines", lambda: model, lambda _: None))


def test_verification_fails_a_wrong_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(randomised(small_config()), tmp_path / "model.pth")
    from dovit.export.graph import functions

    wrong = functions._DECIDE.replace("Greater (confidence, threshold)", "Less (confidence, threshold)")
    monkeypatch.setattr(functions, "_DECIDE", wrong)
    functions.token_pass_functions.cache_clear()
    try:
        with pytest.raises(DovitError, match=r"decision 1 keeps other tokens"):
            export(tmp_path / "model.pth", tmp_path / "engines", {}, None, None)
    finally:
        functions.token_pass_functions.cache_clear()
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("wait", [0.0, 1.5])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, number: int, status: int, wait: float) -> None:
    save_model(randomised(small_config()), tmp_path / "model.pth")
    # a shell without job control starts what runs beside it with interrupts ignored
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    code += "from dovit.export.cli import main; main()"
    command = [sys.executable, "-c", code, "--ckpt", str(tmp_path / "model.pth"), "--out", str(tmp_path / "engines")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("engines/.dovit-export-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(wait)  # torch is tracing
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in errors
    *stages, last = errors.splitlines()
    assert "nothing half-written is left" in last and not any("error" in stage for stage in stages)
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("after", ["engines", STAGE_PREFIX])
def test_an_interrupt_right_after_a_folder_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    real = Path.mkdir

    def interrupted(self: Path, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        if self.name.startswith(after):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "deep" / "engines", lambda stage: pytest.fail("filled"))
    assert not list(tmp_path.iterdir())


def test_capacities() -> None:
    assert default_capacities(1024) == (0, 64, 128, 256, 384, 512, 640, 768, 1024) and default_capacities(1) == (0, 1)
    assert check_capacities((7,), 24) == (0, 7, 24)
    with pytest.raises(UsageError, match="outside"):
        check_capacities((25,), 24)


def test_external_weights_are_the_models(tmp_path: Path) -> None:
    model = randomised(small_config())
    manifest = make_bundle(model, tmp_path)
    parameters = sum(p.numel() for p in model.parameters()) + sum(
        b.numel() for n, b in model.named_buffers() if "running" in n
    )
    listed = sum(step.parameters for step in manifest.steps)
    assert abs(listed - parameters) < 100, (listed, parameters)
    largest = max(manifest.files.values(), key=lambda entry: entry.size)
    assert largest.size > 100_000
    assert json.loads((tmp_path / "bundle.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert np.isfinite(largest.size)
