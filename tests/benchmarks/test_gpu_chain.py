"""The chain's benchmark for a GPU, as far as it can be tested without one: the comparison runs on the fake GPU."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from models import random_images, randomised, small_config
from rich.console import Console
from torch_chains import torch_chain

from dovit.benchmarks import gpu_chain, gpu_comparison
from dovit.benchmarks.gpu_chain import Backend, beside_plans, check_arguments, parse_size, print_report
from dovit.benchmarks.gpu_comparison import Chains, compare
from dovit.benchmarks.gpu_models import dense_of, random_model
from dovit.benchmarks.gpu_rows import Candidate, add_share_of_matrix_rate, counts_for, filling_thresholds, row
from dovit.benchmarks.matrix_rate import matrix_tflop_per_s
from dovit.benchmarks.torch_candidates import Dense, Eager, torch_candidates
from dovit.export.capacities import default_capacities
from dovit.export.checkpoints import save_model
from dovit.export.model import DoViT
from dovit.runtime.errors import UsageError
from dovit.runtime.gpu import profile as profiling
from dovit.runtime.machine import find_gpu

CAPACITIES = (0, 2, 4, 5, 6, 8, 12, 18, 24)  # of 24 tokens, with those that the ratios ask for


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "HEAD_START_BYTES", 256)
    monkeypatch.setattr(gpu_comparison, "PROFILE_ROUNDS", 2)


@pytest.fixture(scope="module")
def model() -> DoViT:
    return randomised(small_config(layers=(1, 3, 5)))


@pytest.fixture(scope="module")
def chains(model: DoViT) -> Chains:
    return Chains(
        torch_chain(model, CAPACITIES, graph=True),
        torch_chain(model, CAPACITIES, graph=False),
        torch_chain(dense_of(model), (0, 24), graph=True),
    )


def test_the_printed_comparison(model: DoViT, chains: Chains) -> None:
    image = random_images(model.config).numpy()
    skipped: dict[str, str] = {}
    others = torch_candidates(model, "fp32", "cpu", image, skipped, compiled=False)
    report = compare(chains, image, 3, 2, own=True, others=others)
    rows = {(r["name"], r["setting"]): r for r in json.loads(json.dumps(report))["rows"]}
    assert report["baseline"] == "dense, one graph, dense" and rows["dense, one graph", "dense"]["speedup"] == 1
    settings = {"keep 1/1/1": [24, 24, 24], "keep 0.5/0.35/0.25": [12, 8, 6], "keep 0.2/0.15/0.1": [5, 4, 2]}
    for setting, kept in settings.items():
        for name in ("chain, one graph", "chain, a graph a segment", "chain, no graph", "torch, eager"):
            found = rows.pop((name, setting))
            assert found["kept"] == kept
            assert found["gmacs"] == pytest.approx(chains.graph.manifest.macs(tuple(kept))[1] / 1e9)
            assert found["mac_ratio"] == pytest.approx(chains.graph.manifest.dense_macs[1] / 1e9 / found["gmacs"])
            assert found["efficiency"] == pytest.approx(found["speedup"] / found["mac_ratio"])
            assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] and found["images_per_s"] > 0
    own = chains.graph.run(image, model.config.thresholds, CAPACITIES).decisions
    assert rows["chain, one graph", "the model's ξ"]["kept"] == [d.keep.shape[1] for d in own]
    assert {setting for _, setting in rows} == {"dense", "the model's ξ"}
    assert {name: profile["kept"] for name, profile in report["profiles"].items()} == {
        name: tuple(kept) for name, kept in settings.items()
    }
    assert all(microseconds > 0 for microseconds in report["host_us"].values())


def test_the_dense_chain_is_the_dense_model(model: DoViT, chains: Chains) -> None:
    """With no decision at all, as a chain, as a module, and as the model with ξ = 1."""
    images = random_images(model.config)
    expected = model.resize_logits(model(images, (1.0, 1.0, 1.0)).logits).argmax(dim=1).numpy()
    found = chains.dense.run(images.numpy(), (), (0, 24))
    assert found.decisions == () and (found.labels == expected).mean() > 0.999
    assert (Dense(model)(images).numpy() == expected).mean() > 0.999
    assert chains.dense.manifest.dense_macs == chains.graph.manifest.dense_macs == chains.dense.manifest.macs(())


def test_a_dense_model_with_taps() -> None:
    model = randomised(small_config("setr-mla", prefix=2))
    images = random_images(model.config)
    expected = model.resize_logits(model(images, (1.0, 1.0)).logits).argmax(dim=1)
    assert (Dense(model)(images) == expected).float().mean() > 0.999


def test_all_candidates_keep_the_same_tokens(model: DoViT, chains: Chains) -> None:
    """Thresholds that fill up a capacity, given counts, and torch give equal labels, so all times are for the same tokens."""
    images = random_images(model.config)
    for counts in ((12, 8, 6), (5, 4, 2), (24, 24, 24), (18, 18, 2)):
        given = chains.graph.run(images.numpy(), (0.0,) * 3, CAPACITIES, counts=counts)
        xi = filling_thresholds(given.decisions, counts, CAPACITIES)
        filled = chains.graph.run(images.numpy(), xi, CAPACITIES)
        for one, other in zip(filled.decisions, given.decisions, strict=True):
            assert np.array_equal(one.index, other.index) and np.array_equal(one.keep, other.keep)
        assert (Eager(model).labels(images, counts).numpy() == given.labels).mean() > 0.999


def test_torch_candidates_give_labels(model: DoViT) -> None:
    """At every call, in the same memory; a returned array is not overwritten by the next call."""
    images = random_images(model.config)
    make = torch_candidates(model, "fp32", "cpu", images.numpy(), {}, compiled=False)
    [dense], [kept] = make("dense", None), make("keep", (5, 4, 2))
    first, second = dense.run(), kept.run()
    expected = model.resize_logits(model(images, (1.0,) * 3).logits).argmax(dim=1).numpy()
    assert isinstance(first, np.ndarray) and first.dtype == np.uint8 and (first == expected).mean() > 0.999
    assert np.array_equal(second, Eager(model).labels(images, (5, 4, 2)).numpy()) and not np.array_equal(first, second)


def test_capacities_of_the_chains(model: DoViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the ratios need and no others; for a model's own ξ those of its bundle."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(gpu_chain, "torch_chain", lambda model, capacities, *a, **o: asked.append(tuple(capacities)))
    gpu_chain.over_torch(model, "fp16", own=False)
    gpu_chain.over_torch(model, "fp16", own=True)
    assert asked[0] == asked[1] == (0, 2, 4, 5, 6, 8, 12, 24) and asked[2] == asked[5] == (0, 24)
    assert set(asked[3]) == {*asked[0], *default_capacities(24)}


def test_statistics_of_a_row() -> None:
    """Rounds of 2 ms but for one in a hundred of 50 ms; the baseline takes twice as long in each."""
    seconds = [2e-3] * 96 + [10e-3] * 3 + [50e-3]
    base = Candidate("dense", "dense", (), 4_000_000_000, lambda: None, lambda n: None)
    one = Candidate("chain", "keep", (3, 2), 1_000_000_000, lambda: None, lambda n: None)
    found = row(one, seconds, [1e-3, 5e-3, 2e-3], base, [2 * s for s in seconds])
    assert found["p50_ms"] == pytest.approx(2) and found["p95_ms"] == pytest.approx(2)
    assert 10 < found["p99_ms"] < 50
    assert (found["mac_ratio"], found["speedup"], found["efficiency"]) == (4, 2, 0.5)
    assert found["images_per_s"] == pytest.approx(500) and found["gmacs"] == 1


def test_counts() -> None:
    assert counts_for((0.5, 0.35, 0.25), 1024, range(1025)) == (512, 358, 256)
    assert counts_for((0.2, 0.15, 0.1), 8192, range(8193)) == (1638, 1229, 819)
    assert counts_for((0.5, 0.35), 24, (0, 5, 11, 17, 24)) == (17, 11), "the capacity that holds so many"
    assert counts_for((0.9375, 0.1875, 0.01), 24, range(25)) == (23, 5, 1), "22.5, 4.5 and 0.24 tokens"
    for shares in ((0.2, 0.5), (1.1,), (0.0,), ()):
        with pytest.raises(UsageError, match="falling shares"):
            counts_for(shares, 24, (0, 24))


def test_random_models() -> None:
    base = random_model("vit-b", (64, 96))
    assert [head.layer for head in base.config.decisions] == [3, 6, 9] and base.config.tokens == 24
    assert sum(p.numel() for p in base.backbone.layers.parameters()) == pytest.approx(85e6, rel=0.01)
    again = random_model("vit-b", (64, 96))
    assert all(torch.equal(one, other) for one, other in zip(base.parameters(), again.parameters(), strict=True))


def test_torch_beside_plans(model: DoViT, chains: Chains, tmp_path: Path) -> None:
    """The checkpoint that the plans were made of takes part in torch; another model does not."""
    save_model(model, tmp_path / "same.safetensors")
    save_model(randomised(small_config()), tmp_path / "other.safetensors")
    image = random_images(model.config).numpy()
    beside = partial(
        beside_plans, chains=chains, precision="fp32", image=image, skipped={}, compiled=False, device="cpu"
    )
    report = compare(chains, image, 2, 1, own=False, others=beside(tmp_path / "same.safetensors"))
    assert {"torch, eager", "chain, one graph"} <= {one["name"] for one in report["rows"]}
    with pytest.raises(UsageError, match="not the model of --engine"):
        beside(tmp_path / "other.safetensors")


def test_sizes() -> None:
    assert parse_size("1024x2048") == parse_size("1024×2048") == (1024, 2048)
    for text in ("1024", "axb", "1x2x3", ""):
        with pytest.raises(UsageError, match="give height and width"):
            parse_size(text)
    for text in ("100x160", "0x16", "-16x16"):
        with pytest.raises(UsageError, match="multiples of the patch size"):
            parse_size(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((Backend.tensorrt_rtx, None, None, None), "by --engine"),
        ((Backend.tensorrt_rtx, "vit-b", None, Path("engines")), "is for --backend torch"),
        ((Backend.torch, None, None, Path("engines")), "instead of --engine"),
        ((Backend.torch, "vit-b", Path("a.pth"), None), "give one of them"),
        ((Backend.torch, "vit-h", None, None), "choose one of vit-t, vit-s, vit-b, vit-l"),
    ],
)
def test_arguments_that_do_not_go_together(given: tuple[Backend, str, Path, Path], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_arguments(*given)


@pytest.mark.skipif(not isinstance(find_gpu(), str), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_chain", "--model", "vit-l", "--size", "1024x2048"])
    with pytest.raises(SystemExit) as ended:
        gpu_chain.main()
    shown = capsys.readouterr()
    assert ended.value.code == 1 and shown.out == ""
    assert len(shown.err.splitlines()) == 1 and ("no NVIDIA GPU" in shown.err or "is missing" in shown.err)


def test_the_matrix_rate_is_a_rate() -> None:
    """Twice the size is eight times the work, so the time must grow, or the result is no rate."""
    small, large = (matrix_tflop_per_s("fp32", "cpu", size) for size in (256, 512))
    assert 0 < small < 100 and 0.1 < large / small < 10


def test_the_printed_table(model: DoViT, chains: Chains) -> None:
    image = random_images(model.config).numpy()
    report = compare(chains, image, 2, 1, own=False) | {
        "gpu": "a GPU",
        "backend": "torch",
        "skipped": {"torch.compile": "no compiler [g++]"},
        "matrix_tflop_per_s": 7.0,
    }
    add_share_of_matrix_rate(report["rows"], 7.0)
    dense = report["rows"][0]
    assert dense["of_matrix_rate"] == pytest.approx(2 * dense["gmacs"] * 1e9 / (dense["p50_ms"] / 1e3) / 7e12)
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(console, report)
    text = console.export_text()
    for word in (
        "a GPU",
        "dense, one graph",
        "keep 0.5/0.35/0.25",
        "12/8/6",
        "of a product",
        "7 TFLOP/s",
        "no compiler [g++]",
    ):
        assert word in text
