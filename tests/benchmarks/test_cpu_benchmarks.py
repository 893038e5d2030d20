"""The benchmarks of sessions on a CPU, on a small model: what they print fits together."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from installed import require
from models import randomised, small_config

from dovit.benchmarks import cpu_profile, cpu_providers, cpu_start, cpu_streams, cpu_threads
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.openvino import device


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(small_config()), folder)
    return folder


def report_of(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> dict[str, Any]:
    """What the module prints, run with these arguments."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_threads_that_sleep_take_no_core(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Threads that spin do, for 20 ms and more behind each image, and a pool of the process refuses a program's own sessions."""
    report = report_of(cpu_threads, monkeypatch, capsys, "--engine", bundle, "--rounds", 3, "--threads", 2)
    rows = {row["name"]: row for row in report["rows"]}
    spinning, sleeping, stopping, default = (rows[name] for name in cpu_threads.WAYS)
    assert [row["own_session_runs"] for row in report["rows"]] == [False, True, True, True]
    # spinning threads get less than those 20 ms where other work has the cores
    asleep, awake = ([row["cpu_ms_idle"] for row in rows] for rows in ((sleeping, stopping), (spinning, default)))
    assert 4 * max(asleep) < min(awake)
    assert all(0 < row["ms_fastest"] <= row["ms"] for row in report["rows"])


def test_the_profile_has_every_operation_once(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sums over kinds are about those over steps; the dense model has no decisions, whose products are in float32."""
    require("openvino")
    monkeypatch.setattr(cpu_profile, "PRODUCT", 256)
    report = report_of(
        cpu_profile, monkeypatch, capsys, "--engine", bundle, "--precision", "fp32", "--rounds", 3, "--threads", 1
    )
    manifest = open_bundle(bundle).manifest
    assert report["kept"] == [manifest.tokens] * len(manifest.decisions)
    assert [row["step"] for row in report["steps"]] == [step.name for step in manifest.steps[:-1]]
    assert sum(row["gmacs_true"] for row in report["steps"]) < manifest.macs((manifest.tokens,) * 2)[1] / 1e9
    assert all(row["of_product"] > 0 for row in report["steps"]) and report["product_gmacs_per_s"] > 0
    kinds = report["operations"]
    assert len({(row["operation"], row["precision"]) for row in kinds}) == len(kinds)
    products = next(row for row in kinds if (row["operation"], row["precision"]) == ("FullyConnected", "f32"))
    assert products["chain_ms"] > 0 < products["dense_ms"]
    for name in ("chain", "dense"):
        assert sum(row[f"{name}_ms"] for row in kinds) == pytest.approx(report["operations_ms"][name], rel=0.5)


def test_both_providers_on_models_of_random_weights(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require("openvino")
    report = report_of(
        cpu_providers, monkeypatch, capsys, "--engine", bundle, "--models", "vit-t:32x48", "--rounds", 1, "--threads", 1
    )
    assert [(row["name"], row["tokens"]) for row in report["rows"]] == [(str(bundle), 24)] * 2 + [
        ("vit-t:32x48", 6)
    ] * 2
    assert all(row["openvino_over_onnxruntime"] > 0 < row["cpu_openvino_over_onnxruntime"] for row in report["rows"])


def test_streams_and_starts(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    require("openvino")
    report = report_of(
        cpu_streams, monkeypatch, capsys, "--engine", bundle, "--rounds", 1, "--keep", "0.5,0.25", "--provider", "cpu"
    )
    assert report["rows"][0]["name"] == "one at a time, exact" and report["rows"][0]["cpu_over_first"] == 1
    assert len(report["rows"]) == 6 + 2 * (len(os.sched_getaffinity(0)) > 1)
    least, most = report["kept"]["least"], report["kept"]["most"]
    assert 0.6 * 0.5 * 24 - 1 <= least[0] <= most[0] <= 1.4 * 0.5 * 24 + 1
    report = report_of(cpu_start, monkeypatch, capsys, "--engine", bundle, "--rounds", 1, "--threads", 1)
    assert [row["name"] for row in report["rows"]] == [
        "ONNX Runtime fp32",
        "OpenVINO fp32",
        "OpenVINO fp32, compiled before",
    ]
    assert all(row["load"] > 0 < row["image"] for row in report["rows"])


def test_bf16_without_its_instructions_ends_in_a_sentence(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The profile, which takes bf16 where it can, takes float32 there."""
    require("openvino")
    for module in (cpu_profile, device):
        monkeypatch.setattr(module, "computes_bf16", lambda: False)
    monkeypatch.setattr(cpu_profile, "PRODUCT", 256)
    profile = report_of(cpu_profile, monkeypatch, capsys, "--engine", bundle, "--rounds", 1, "--threads", 1)
    assert profile["precision"] == "fp32"
    for module in (cpu_profile, cpu_start, cpu_streams):
        with pytest.raises(SystemExit) as end:
            report_of(module, monkeypatch, capsys, "--engine", bundle, "--precision", "bf16", "--rounds", 1)
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (2, "") and said.err.count("\n") == 1
        assert "error: precision bf16: this CPU has no bf16 instructions" in said.err


def test_a_bundle_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (cpu_profile, cpu_providers, cpu_start, cpu_streams, cpu_threads):
        with pytest.raises(SystemExit):
            report_of(module, monkeypatch, capsys, "--engine", tmp_path / "none", "--rounds", 1)
        said = capsys.readouterr()
        assert f"error: {tmp_path / 'none'}" in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        *(
            (module, f"{option} 0", f"argument {option}: 0: give a whole number from 1")
            for module in (cpu_profile, cpu_providers, cpu_start, cpu_threads)
            for option in ("--rounds", "--threads")
        ),
        (cpu_streams, "--rounds x", "argument --rounds: x: give a whole number from 1"),
        *((module, "--keep x", "--keep x: not shares") for module in (cpu_profile, cpu_streams, cpu_threads)),
        (cpu_threads, "--keep 0.5", "keep 0.5: give 2 falling shares"),
        *(
            (cpu_providers, f"--models {name}", f"--models {name}: give NAME")
            for name in ("x:32x48", "vit-t", "vit-t:32x0")
        ),
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_named(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: Any,
    arguments: str,
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        report_of(module, monkeypatch, capsys, "--engine", bundle, *arguments.split())
    said = capsys.readouterr()
    assert end.value.code == 2 and f": error: {sentence}" in said.err.splitlines()[-1]
