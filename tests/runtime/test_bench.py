"""dovit-bench on a small bundle: its figures are consistent."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime
import pytest
from bundles import make_bundle
from models import random_images, randomised, small_config

from dovit.benchmarks import cli, gpu_chain
from dovit.benchmarks.chain import bench, thresholds_for
from dovit.benchmarks.measure import interleaved, paired_ratio
from dovit.benchmarks.report import Settings
from dovit.runtime.cli.options import BackendChoice, PrecisionChoice
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load
from dovit.runtime.machine import Gpu


def test_rows_fit_together(tmp_path: Path) -> None:
    make_bundle(randomised(small_config()), tmp_path)
    report = bench(tmp_path, None, Settings(runs=3, warmup=1, threads=2, keep=(0.5, 0.25)))
    dense, full, own, kept = report["rows"]
    assert kept["kept"] == [12, 6] and full["kept"] == [24, 24] and dense["kept"] == []
    assert dense["gmacs_true"] < full["gmacs_true"], "the chain has heads on top"
    assert kept["gmacs_true"] < own["gmacs_true"] or own["kept"] <= [12, 6]
    for row in report["rows"]:
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["mac_ratio"])
    with pytest.raises(UsageError, match="falling shares"):
        bench(tmp_path, None, Settings(runs=1, warmup=0, threads=1, keep=(0.25, 0.5)))


@pytest.mark.parametrize(
    ("decoder", "keep", "kept"),
    [
        ("setr-naive", (0.5, 0.01), [12, 0]),
        ("setr-naive", (0.01, 0), [0]),
        ("setr-naive", (0.9375, 0.1875), [23, 5]),  # 22.5 and 4.5 tokens
        ("eomt", (0.5, 0), [12, 1]),
    ],
)
def test_shares_of_less_than_a_token(tmp_path: Path, decoder: str, keep: tuple[float, ...], kept: list[int]) -> None:
    """Thresholds keep as many tokens as `session(keep=)`: none, where the model allows it, and not nearly all."""
    make_bundle(randomised(small_config(decoder)), tmp_path)
    session = load(tmp_path, provider="cpu")
    image = random_images(small_config())
    xi = thresholds_for(session, image.numpy(), keep)
    decisions = session.chain.run(image.numpy(), xi, session.capacities("exact")).decisions
    assert [decision.keep.shape[1] for decision in decisions] == kept
    assert session(image[0].numpy(), keep=keep).kept == (*kept, 0)[:2]


def test_chain_and_dense_model_run_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ONNX Runtime session has the threads that were asked for, and no row is OpenVINO's, whatever DOVIT_PROVIDER says."""
    manifest = make_bundle(randomised(small_config()), tmp_path)
    threads: list[int] = []
    session = onnxruntime.InferenceSession

    def recorded(source: object, options: onnxruntime.SessionOptions, **given: object) -> onnxruntime.InferenceSession:
        threads.append(options.intra_op_num_threads)
        return session(source, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    monkeypatch.setenv("DOVIT_PROVIDER", "openvino")
    report = bench(tmp_path, None, Settings(runs=1, warmup=0, threads=3))
    assert threads == [3] * (len(manifest.steps) + 1)  # the dense model too
    assert report["threads"] == 3 and report["cores"] == len(os.sched_getaffinity(0))
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__


def test_a_gpu_is_asked_for_by_its_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs gpu_chain's comparison with the same arguments; without a GPU it is refused, and so are options for the CPU."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(gpu_chain, "command", lambda **given: asked.append(given))
    monkeypatch.setattr(cli, "find_gpu", lambda: "there is none")
    backend = BackendChoice.tensorrt_rtx
    with pytest.raises(DovitError, match="needs an NVIDIA GPU: there is none; --backend onnxruntime runs on a CPU"):
        cli.command(tmp_path, backend=backend)
    for flag, given in (
        ("--keep", {"keep": "0.5"}),
        ("--warmup", {"warmup": 0}),
        ("--peers and --int8", {"peers": True, "int8": tmp_path}),
        ("--sizes and --ckpt", {"sizes": True, "ckpt": tmp_path}),
    ):
        with pytest.raises(UsageError, match=f"{flag}: for the CPU alone"):
            cli.command(tmp_path, backend=backend, **given)
    with pytest.raises(UsageError, match="--precision is that of plans"):
        cli.command(tmp_path, precision=PrecisionChoice.fp16)
    assert not asked
    monkeypatch.setattr(cli, "find_gpu", lambda: Gpu("GPU", "8.9", (13, 0)))
    cli.command(tmp_path, backend=backend, precision=PrecisionChoice.bf16, runs=7)
    [given] = asked
    assert given["backend"] is gpu_chain.Backend.tensorrt_rtx and given["engine"] == tmp_path
    assert (given["precision"], given["rounds"], given["as_json"]) == (PrecisionChoice.bf16, 7, False)


def test_each_round_runs_every_candidate() -> None:
    calls: list[str] = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=4, warmup=1)
    assert all(sorted(calls[k : k + 3]) == ["a", "b", "c"] for k in range(0, 15, 3))
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys("abc", 4)
    assert paired_ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == 2.0
