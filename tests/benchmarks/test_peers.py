"""dovit-bench --peers and --sizes on a small model: rows that fit together, and rows that cannot run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from installed import require
from models import randomised, small_config

from dovit.benchmarks import cli
from dovit.benchmarks.measure import paired_ratio
from dovit.benchmarks.peers import compare, dense
from dovit.benchmarks.peers.compare import compare_peers, memory_of, rows_of
from dovit.benchmarks.peers.peer import Peer, Running
from dovit.benchmarks.peers.sizes import compare_sizes
from dovit.benchmarks.report import Settings
from dovit.engines.accuracy import Scene
from dovit.export.checkpoints.own import save_model
from dovit.export.quantization import measure
from dovit.export.quantization.bundle import Calibration, quantize
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.write import write_bundle
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.openvino import device


def settings(*only: str, runs: int = 1, keep: tuple[float, ...] | None = None) -> Settings:
    return Settings(runs=runs, warmup=0, threads=1, keep=keep, only=only)


def test_every_row_is_a_process_and_says_what_it_kept(bundle: Path) -> None:
    """Labels of the same runtime are equal, whether dense or the chain at ξ = 1; torch's rows need the checkpoint, and say so."""
    report = compare_peers(bundle, None, settings("ONNX Runtime fp32", "torch eager fp32", runs=2, keep=(0.5, 0.25)))
    dense, full, kept = report["rows"]
    assert dense["labels_equal"] == full["labels_equal"] == 1
    assert (dense["kept"], full["kept"], kept["kept"]) == ([24], [24, 24], [12, 6])
    assert dense["speedup"] == dense["over_best_peer"] == dense["mac_ratio"] == 1
    assert kept["best_peer"] == dense["name"] and kept["over_best_peer"] == kept["speedup"]
    assert report["left_out"] == {"dense, torch eager fp32": "needs the checkpoint: give --ckpt"}


def test_rows_that_memory_has_no_room_for_are_left_out(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they start. ONNX Runtime's need grows with the square of the tokens; NNCF needs most by the weights."""
    manifest = open_bundle(bundle).manifest
    monkeypatch.setattr(compare, "available_memory", lambda: 1 << 20)
    with pytest.raises(DovitError, match=r"needs about 0\.3 GiB of memory .* and 0\.0 are available: .* with --only"):
        compare_peers(bundle, None, settings("ONNX Runtime fp32"))
    large = manifest.model_copy(update={"image_size": (1024, 2048), "embed_dim": 768})
    same = {"model": "", "image": "", "threads": 1, "warmup": 0}
    ort, openvino, int8 = (
        Peer(name="", kind=kind, precision=precision, **same)
        for kind, precision in (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8"))
    )
    assert large.tokens == 8192
    scores = 12 * 8192**2 * 4  # of one layer
    assert 2 * scores < memory_of(ort, large) - memory_of(openvino, large) < 2.01 * scores
    assert memory_of(openvino, large) < memory_of(int8, large)


def test_the_chain_in_int8_has_rows_beside_the_dense_model_in_int8(bundle: Path, tmp_path: Path) -> None:
    """Of a bundle that was quantized from the same one; others are refused."""
    require("openvino")
    opened = open_bundle(bundle)
    image = np.random.default_rng(0).integers(0, 256, (*opened.manifest.image_size, 3), dtype=np.uint8)
    calibration = Calibration([Scene(image)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MIN_LABELS_EQUAL", 0.5)
        write_bundle(tmp_path / "int8", lambda stage: quantize(opened, "int8", calibration, stage, lambda _: None))
    report = compare_peers(bundle, image, settings("chain keep", keep=(0.5, 0.25)), int8=tmp_path / "int8")
    row = next(row for row in report["rows"] if row["name"] == "chain keep 0.5/0.25, OpenVINO int8")
    assert row["kept"] == [12, 6] and 0.5 < row["labels_equal"] <= 1
    with pytest.raises(UsageError, match="its products are fp32; --int8 takes a bundle of --precision int8"):
        compare_peers(bundle, image, settings(), int8=bundle)
    make_bundle(randomised(small_config(classes=5)), tmp_path / "other")
    with pytest.raises(UsageError, match="of another model or other ξ"):
        compare_peers(tmp_path / "other", image, settings(), int8=tmp_path / "int8")


def test_torch_runs_the_bundles_checkpoint_and_no_other(tmp_path: Path) -> None:
    """Its labels are the bundle's; another checkpoint is refused before anything is measured."""
    checkpoint, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    save_model(randomised(small_config()), checkpoint)
    save_model(randomised(small_config(), seed=1), other)
    cli_export(checkpoint, tmp_path / "engines")
    report = compare_peers(
        tmp_path / "engines", None, settings("dense, ONNX Runtime fp32", "torch eager"), checkpoint=checkpoint
    )
    assert [row["name"] for row in report["rows"]] == [
        "dense, ONNX Runtime fp32",
        "dense, torch eager fp32",
        "dense, torch eager bf16",
    ]
    assert report["rows"][1]["labels_equal"] == 1 and report["left_out"] == {}
    with pytest.raises(DovitError, match="not the checkpoint that"):
        compare_peers(tmp_path / "engines", None, settings(), checkpoint=other)


def cli_export(checkpoint: Path, out: Path) -> None:
    from dovit.export.run import export

    export(checkpoint, out, {}, None, None, check=False)


def test_a_worker_that_cannot_load_or_is_killed_says_why(tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((64, 96, 3), np.uint8))
    same = {"image": str(tmp_path / "image.npy"), "threads": 1, "warmup": 0}
    missing = Peer(name="a", kind="onnxruntime", precision="fp32", model=str(tmp_path / "none.onnx"), **same)
    with Running(missing, tmp_path, 0) as running, pytest.raises(DovitError, match=r"none\.onnx"):
        running.ready()
    height, width = open_bundle(bundle).manifest.image_size
    np.save(tmp_path / "image.npy", np.zeros((height, width, 3), np.uint8))
    chain = Peer(name="b", kind="chain", precision="fp32", model=str(bundle), **same)
    with Running(chain, tmp_path, 1) as running:
        running.ready()
        assert running.run()["seconds"] > 0
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(DovitError, match=r"ended with status -9 \(out of memory\?\)"):
            running.run()


def test_float32_is_not_measured_as_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO computes in float32 on a CPU without bf16, whatever it is asked for: the dense row is left out, as the chain's."""
    require("openvino")
    monkeypatch.setattr(device, "computes_bf16", lambda: False)
    with pytest.raises(UsageError, match="precision bf16: this CPU has no bf16 instructions"):
        dense.openvino(tmp_path / "model.onnx", 1, "bf16")


def test_ratios_are_over_the_same_runtime_and_over_the_best_peer_but_int8(bundle: Path) -> None:
    """From times that are given: int8 is the fastest, and not what the chain is compared with."""
    same = {"model": "", "image": "", "threads": 1, "warmup": 0}
    peers = [
        Peer(name="ort", kind="onnxruntime", precision="fp32", **same),
        Peer(name="ort int8", kind="onnxruntime", precision="int8", **same),
        Peer(name="ov bf16", kind="openvino", precision="bf16", **same),
        Peer(name="chain cpu", kind="chain", precision="fp32", **same),
        Peer(name="chain ov", kind="chain", precision="bf16", provider="openvino", **same),
    ]
    seconds = {
        "ort": [8.0, 9.0],
        "ort int8": [1.0, 1.0],
        "ov bf16": [4.0, 4.0],
        "chain cpu": [4.0, 3.0],
        "chain ov": [2.0, 1.0],
    }
    facts = {name: {"load_s": 0.0, "peak_mib": 0.0} for name in seconds} | {
        name: {"load_s": 0.0, "peak_mib": 0.0, "kept": [12, 6], "schedule": "exact"}
        for name in ("chain cpu", "chain ov")
    }
    labels = {name: np.zeros((1, 2, 2), np.uint8) for name in seconds}
    rows = {row["name"]: row for row in rows_of(peers, seconds, facts, labels, open_bundle(bundle).manifest)}
    assert rows["chain cpu"]["speedup"] == paired_ratio(seconds["ort"], seconds["chain cpu"]) == 2.5
    assert rows["chain ov"]["speedup"] == rows["chain ov"]["over_best_peer"] == 3.0
    assert rows["chain cpu"]["over_best_peer"] == pytest.approx((1 + 4 / 3) / 2)
    assert rows["ort int8"]["best_peer"] == "ov bf16"


def test_sizes_export_the_checkpoint_at_every_grid(tmp_path: Path) -> None:
    save_model(randomised(small_config()), tmp_path / "model.safetensors")
    reports = compare_sizes(
        tmp_path / "model.safetensors", 16, settings("chain ξ = 1, ONNX Runtime"), grids=((2, 2), (2, 4))
    )
    assert [report["tokens"] for report in reports] == [4, 8]
    assert [row["kept"] for report in reports for row in report["rows"]] == [[4, 4], [8, 8]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"peers": True, "sizes": True}, "give one of them"),
        ({"ckpt": Path("model.pth")}, "--ckpt and --only are for --peers and --sizes"),
        ({"sizes": True}, "give its checkpoint with --ckpt"),
        ({"sizes": True, "ckpt": Path("m"), "image": Path("i.png")}, "leave out --image"),
    ],
)
def test_options_that_do_not_go_together(bundle: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        cli.command(bundle, **options)  # type: ignore[arg-type]
