"""The provider `auto`: the faster one, measured once for a bundle, CPU and number of threads, and kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from bundles import make_bundle
from installed import require
from models import randomised, small_config
from PIL import Image
from processors import PROCESSORS
from typer.testing import CliRunner
from user_homes import without_home

from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli import run
from dovit.runtime.cli.backends import print_backends
from dovit.runtime.errors import UsageError
from dovit.runtime.loading import load
from dovit.runtime.openvino import device, records, speed
from dovit.runtime.openvino.records import keep_record, read_record
from dovit.runtime.openvino.speed import ProviderSpeed

require("openvino")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(small_config("setr-naive")), folder)
    return folder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for records, and `auto` undecided."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DOVIT_PROVIDER")
    return tmp_path / "cache" / "dovit" / "openvino"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Ratios that `measure` finds, one a call, the last of them first."""
    ratios: list[float] = []

    def measure(bundle: object, manifest: str, threads: int, cpu: object, openvino: object) -> ProviderSpeed:
        assert cpu is not openvino
        return speed_of(ratios.pop(), manifest, threads)

    monkeypatch.setattr(speed, "measure", measure)
    return ratios


def speed_of(ratio: float, manifest: str = "", threads: int = 1) -> ProviderSpeed:
    return ProviderSpeed(
        bundle="/b",
        manifest=manifest,
        threads=threads,
        rounds=3,
        onnxruntime_cpu_ms=10,
        openvino_cpu_ms=10 * ratio,
        openvino_over_onnxruntime=ratio,
    )


def test_it_is_measured_once_and_what_is_kept_decides(bundle: Path, kept: Path, measured: list[float]) -> None:
    measured[:] = [1.01]
    for _ in range(3):
        session = load(bundle, threads=1)
        assert session.provider == "cpu"
        assert session.provider_reason == (
            "OpenVINO takes 1.01 times ONNX Runtime's CPU time (10.1 ms an image, 10.0 ms; measured with 1 thread when it was "
            "first loaded)"
        )
    [file] = kept.iterdir()
    measured[:] = [0.99]
    assert load(bundle, threads=2).provider == "openvino", "another number of threads is measured by itself"
    assert load(bundle, threads=1).provider == "cpu"
    file.write_text(speed_of(0.5).model_dump_json())
    assert load(bundle, threads=1).provider == "openvino"
    measured[:] = [1.5]
    file.write_text('{"threads": 1}')  # damaged
    assert load(bundle, threads=1).provider == "cpu"
    assert read_record(file, ProviderSpeed) is not None and len(list(kept.iterdir())) == 2


def test_nothing_is_measured_where_something_else_decides(
    bundle: Path, kept: Path, measured: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load(bundle, provider="cpu").provider == "cpu"
    assert load(bundle, provider="openvino").provider_reason is None
    assert load(bundle, low_memory=True).provider == "cpu"
    assert load(bundle, cache=tmp_path / "compiled").provider == "openvino"
    monkeypatch.setenv("DOVIT_PROVIDER", "openvino")
    assert load(bundle).provider == "openvino"
    with pytest.raises(UsageError, match="low_memory is for the provider cpu"):
        load(bundle, provider="openvino", low_memory=True)
    monkeypatch.delenv("DOVIT_PROVIDER")
    macs = open_bundle(bundle).manifest.dense_macs[1]
    monkeypatch.setattr(speed, "LARGE", macs)
    session = load(bundle)
    assert session.provider == "openvino" and "GMACs" in str(session.provider_reason)
    monkeypatch.setattr(speed, "LARGE", macs + 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in it
    session = load(bundle)
    assert session.provider == "cpu" and "cannot be written" in str(session.provider_reason)


def test_the_ratio_is_that_of_the_times(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that compute for a given time, and longer on the first image, which does not count; rounds end with the time."""

    def busy(seconds: float) -> SimpleNamespace:
        calls: list[bytes] = []

        def run(image: object, thresholds: object, capacities: object) -> None:
            end = time.process_time() + (seconds if calls else 0.2)
            while time.process_time() < end:
                pass
            calls.append(image.tobytes())  # type: ignore[attr-defined]

        return SimpleNamespace(run=run, calls=calls)

    monkeypatch.setattr(speed, "SECONDS", 60.0)
    cpu, openvino = busy(0.01), busy(0.03)
    found = speed.measure(open_bundle(bundle), "", 2, cpu, openvino)  # type: ignore[arg-type]
    assert found.rounds == speed.ROUNDS and 2.5 < found.openvino_over_onnxruntime < 3.5 and found.faster == "cpu"
    assert 10 <= found.onnxruntime_cpu_ms < 12 and 30 <= found.openvino_cpu_ms < 36
    assert cpu.calls == openvino.calls and len(set(cpu.calls)) == 1 + speed.ROUNDS, "the same images, each once"
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    found = speed.measure(open_bundle(bundle), "", 2, busy(0.03), busy(0.01))  # type: ignore[arg-type]
    assert found.rounds == speed.FEWEST_ROUNDS and found.faster == "openvino"


def test_both_providers_are_measured_on_a_bundle(bundle: Path, kept: Path) -> None:
    session = load(bundle, threads=1)
    [file] = kept.iterdir()
    found = read_record(file, ProviderSpeed)
    assert found is not None and session.provider == found.faster and found.bundle == str(bundle)


def test_an_earlier_record_of_another_process_stays(kept: Path) -> None:
    assert keep_record(kept / "r.json", speed_of(2.0)) == speed_of(2.0)
    assert keep_record(kept / "r.json", speed_of(0.5)) == speed_of(2.0)
    assert read_record(kept / "r.json", ProviderSpeed) == speed_of(2.0)
    (kept / "r.json").write_text("damaged")
    assert keep_record(kept / "r.json", speed_of(0.5)) == speed_of(0.5)
    assert [file.name for file in kept.iterdir()] == ["r.json"]


def test_for_a_user_without_a_home_nothing_is_measured(
    bundle: Path, kept: Path, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_home(monkeypatch)
    session = load(bundle)
    assert session.provider == "cpu" and "the user has no home (set XDG_CACHE_HOME)" in str(session.provider_reason)
    assert keep_record(None, speed_of(2.0)) == speed_of(2.0) and read_record(None, ProviderSpeed) is None


@pytest.mark.parametrize(("content", "says"), PROCESSORS.values(), ids=PROCESSORS)
def test_a_record_is_of_one_processor(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    assert records.processor(tmp_path / "cpuinfo") == says


def test_the_commands_say_what_is_taken_and_why(
    bundle: Path,
    kept: Path,
    measured: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def listed() -> str:
        print_backends(as_json=False)
        return capsys.readouterr().out

    first = listed()
    assert (
        "openvino for bf16 and for models from 30 GMACs an image on, and for smaller ones the provider that was"
        in first
    )
    assert "measured on this CPU" not in first and "tensorrt-rtx" in first
    measured[:] = [1.25]
    Image.new("RGB", (96, 64)).save(tmp_path / "image.png")
    app = typer.Typer()
    app.command()(run.command)
    arguments = [str(tmp_path / "image.png"), "--engine", str(bundle), "--out", str(tmp_path / "out"), "--threads", "1"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert "dovit-run: note: provider cpu: OpenVINO takes 1.25 times ONNX Runtime's CPU time" in shown.stderr
    row = next(line for line in listed().splitlines() if line.startswith("/b"))
    assert row.split() == ["/b", "1", "10.0", "12.5", "1.25", "cpu"]
    [file] = kept.iterdir()
    file.rename(file.with_name("speed-of-another-processor.json"))
    assert "measured on this CPU" not in listed()
    monkeypatch.setenv("DOVIT_PROVIDER", "cpu")
    assert "auto takes onnxruntime with the provider cpu: DOVIT_PROVIDER is set" in listed()


@pytest.mark.parametrize("arguments", [["--list-backends", "--json"], ["--json", "--list-backends"]], ids=" ".join)
def test_scripts_read_the_backends_as_json(
    kept: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As benchmarks/camvid.sh does: whether `auto` can compute in bf16 here, which DOVIT_PROVIDER decides too."""
    monkeypatch.setattr("sys.argv", ["dovit-run", *arguments])
    monkeypatch.setattr(device, "computes_bf16", lambda: True)
    keep_record(speed.speed_file("m", 1), speed_of(1.25, "m"))

    def listed() -> dict[str, Any]:
        with pytest.raises(SystemExit) as end:
            run.main()
        assert end.value.code == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    found = listed()
    assert [(row["backend"], row["provider"]) for row in found["backends"]] == [
        ("onnxruntime", "cpu"),
        ("onnxruntime", "openvino"),
        ("tensorrt", None),
        ("tensorrt-rtx", None),
    ]
    cpu, openvino, *plans = found["backends"]
    assert cpu["usable"] and cpu["auto"] and cpu["precisions"] == ["fp32"]
    assert openvino["usable"] and openvino["auto"] and openvino["precisions"] == ["fp32", "bf16"]
    assert not any(row["auto"] for row in plans) and all(bool(row["precisions"]) == row["usable"] for row in plans)
    assert "openvino for bf16" in found["auto"]
    [measured] = found["measured"]
    assert measured["openvino_over_onnxruntime"] == 1.25 and measured["faster"] == "cpu"
    monkeypatch.setenv("DOVIT_PROVIDER", "cpu")
    found = listed()
    assert [row["auto"] for row in found["backends"]] == [True, False, False, False] and not found["measured"]
    monkeypatch.setenv("DOVIT_PROVIDER", "auto")
    monkeypatch.setattr(device, "why_not", lambda: device.MISSING)
    found = listed()
    assert [row["auto"] for row in found["backends"]] == [True, False, False, False]
    assert found["backends"][1]["precisions"] == [] and device.MISSING in found["backends"][1]["note"]


def test_records_of_bf16_and_of_speed_are_apart(kept: Path) -> None:
    names = [
        records.record_file("bf16", 1, "m"),
        records.record_file("speed", 1, "m", "1.31.1", 2),
        records.record_file("speed", 1, "m", "1.31.1", 4),
        records.record_file("speed", 1, "m", "1.32.0", 2),
        records.record_file("speed", 2, "m", "1.31.1", 2),
        records.record_file("speed", 1, "n", "1.31.1", 2),
    ]
    assert len(set(names)) == len(names)
