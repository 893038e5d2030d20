"""Runs: they learn, are the same every time, and change only what they should."""

import sys
from pathlib import Path

import pytest
import torch
from models import randomised
from PIL import Image
from street_runs import street_config, street_run, trained, weights

from dovit.export.checkpoints import load_model, save_model
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError
from dovit.training.log import read_scores
from dovit.training.settings import Settings


def test_a_run_learns(tmp_path: Path, checkpoint: Path) -> None:
    lines = trained(tmp_path, checkpoint, {"thresholds": (0.6,)}, steps=40, lr=0.003, clip=1.0, batch=4, label_stride=4)
    first, last = (sum(line["loss"] for line in part) / 5 for part in (lines[:5], lines[-5:]))
    assert last < 0.6 * first
    assert load_model(tmp_path / "model.safetensors").model.config.thresholds == (0.6, 0.6)
    names = load_model(tmp_path / "model.safetensors").model.config.class_names
    assert names is not None and names[0] == "road"


def test_the_same_run_twice_is_the_same(tmp_path: Path, checkpoint: Path) -> None:
    assert trained(tmp_path / "a", checkpoint) == trained(tmp_path / "b", checkpoint)
    assert trained(tmp_path / "c", checkpoint, seed=1) != trained(tmp_path / "a2", checkpoint)


def test_heads_only_changes_the_heads_and_nothing_else(tmp_path: Path, checkpoint: Path) -> None:
    lines = trained(tmp_path, checkpoint, steps=6, lr=0.01, heads_only=True)
    before, after = weights(checkpoint), weights(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("heads.") and not name.endswith("tracked")}
    assert "distillation" not in lines[0]


@pytest.mark.parametrize("head", ["lens", "neighbours"])
def test_heads_only_trains_lenses_too(head: str, tmp_path: Path) -> None:
    model = randomised(street_config(head=head))
    save_model(model, tmp_path / "lens.safetensors")
    trained(tmp_path / "out", tmp_path / "lens.safetensors", steps=6, lr=0.01, heads_only=True)
    before, after = weights(tmp_path / "lens.safetensors"), weights(tmp_path / "out" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("heads.", "lenses.", "refinement."))}


@pytest.mark.parametrize("dense", [False, True], ids=["token pass", "dense"])
def test_a_frozen_backbone_stays_as_it_is(tmp_path: Path, checkpoint: Path, dense: bool) -> None:
    trained(tmp_path, checkpoint, {"dense": dense}, steps=6, lr=0.01, freeze_backbone=True)
    before, after = weights(checkpoint), weights(tmp_path / "model.safetensors", dense=dense)
    changed = {name for name in after if not torch.equal(before[name], after[name]) and not name.endswith("tracked")}
    assert changed == {name for name in after if not name.startswith("backbone.") and not name.endswith("tracked")}
    assert any(name.startswith("heads.") for name in changed) != dense


def test_auto_takes_bf16_where_the_machine_multiplies_in_it() -> None:
    from dovit.runtime.machine import cpu_multiplies_in_bf16
    from dovit.training.cli.train import Precision, _precision

    assert (_precision(Precision.AUTO, False) == "bf16") == cpu_multiplies_in_bf16()
    assert [_precision(Precision(name), True) for name in ("fp32", "bf16", "auto")] == ["fp32", "bf16", "bf16"]


@pytest.mark.parametrize("head", ["corrected-cells", "neighbours-cells"])
def test_bf16_autocast_of_lenses_and_cells(head: str, tmp_path: Path) -> None:
    model = randomised(street_config("segmenter-linear", head=head))
    save_model(model, tmp_path / "model.pth")
    low, full = (trained(tmp_path / p, tmp_path / "model.pth", precision=p)[0]["loss"] for p in ("bf16", "fp32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


def test_bf16_autocast(tmp_path: Path, checkpoint: Path) -> None:
    low, full = (trained(tmp_path / p, checkpoint, precision=p)[0]["loss"] for p in ("bf16", "fp32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize(
    ("precision", "has", "told"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_bf16_that_a_cpu_must_emulate_is_told(
    precision: str,
    has: bool,
    told: bool,
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dovit.training.run.cpu_multiplies_in_bf16", lambda: has)
    trained(tmp_path / "run", checkpoint, precision=precision, steps=1)
    assert ("this CPU has no instructions for it" in capfd.readouterr().err) == told


def test_a_loss_that_is_nan_ends_the_run(tmp_path: Path) -> None:
    model: DoViT = randomised(street_config())
    with torch.no_grad():
        model.decoder.classify.bias.fill_(-3e38)[0] = 3e38  # whose cross-entropy is infinite
    save_model(model, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="lower --lr"):
        trained(tmp_path / "out", tmp_path / "model.pth")
    assert not (tmp_path / "out" / "last.pt").exists()


def test_no_state_is_saved_of_weights_that_are_nan(tmp_path: Path, checkpoint: Path) -> None:
    """Between two steps that are logged nobody looks at the loss: the state before is the one to go on from."""
    diverging = Settings(steps=40, batch=2, lr=1e4)
    with pytest.raises(DovitError, match="weights are no longer finite after 5 steps: train with a lower --lr"):
        street_run(tmp_path, checkpoint, diverging, log_every=10, save_every=5)
    assert not (tmp_path / "last.pt").exists()


def without_validation(data: Path) -> None:
    """A data set without a part to validate on."""
    for part in ("images", "labels"):
        (data / part / "train").mkdir(parents=True)
        Image.new("RGB" if part == "images" else "L", (96, 64)).save(data / part / "train" / "0.png")


def test_data_without_a_part_to_validate_on(tmp_path: Path, checkpoint: Path) -> None:
    data = tmp_path / "data"
    without_validation(data)
    street_run(tmp_path / "out", checkpoint, Settings(steps=1, batch=1), data=str(data), validation=str(data))
    assert (tmp_path / "out" / "model.safetensors").exists() and read_scores(tmp_path / "out", 0) == {}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "give either --ckpt"),
        (["--ckpt", "missing.pth"], "missing.pth"),
        (["--ckpt", "CKPT", "--data", "nowhere"], "no such folder"),
        (["--ckpt", "CKPT", "--lr", "0"], "error: --lr 0.0: give a value that is greater than 0\n"),
        (["--ckpt", "CKPT", "--lr", "nan"], "error: --lr nan: give a value that is a finite number\n"),
        (
            ["--ckpt", "CKPT", "--head-lr-mult", "-1"],
            "error: --head-lr-mult -1.0: give a value that is greater than or equal to 0",
        ),
        (["--ckpt", "CKPT", "--weight-decay", "inf"], "--weight-decay inf: give a value that is a finite number"),
        (["--ckpt", "CKPT", "--label-stride", "999"], "leaves no label of crops of 64×96"),
        (["--ckpt", "CKPT", "--seed", "9" * 400], "--seed"),
        (["--ckpt", "CKPT", "--batch", str(10**30)], "000: give a value that is less than or equal to 65536"),
        (["--ckpt", "CKPT", "--scale-range", "2"], "two factors"),
        (["--ckpt", "CKPT", "--scale-range", "2,1"], "--scale-range 2,1: give the smaller factor first, as 0.5,2.0"),
        (["--ckpt", "CKPT", "--scale-range", "0,1"], "--scale-range 0,1: give factors above 0"),
        (["--ckpt", "CKPT", "--scale-range", "0.5,inf"], "--scale-range 0.5,inf: give factors above 0"),
        (["--ckpt", "CKPT", "--scale-range", "0.5,,2"], "--scale-range 0.5,,2: give numbers separated by commas"),
        (["--ckpt", "CKPT", "--merge", "--merge-cells", "4"], "(--merge) or by cell (--merge-cells): give one of them"),
        (["--ckpt", "CKPT", "--data", "/dev/null"], "/dev/null: a file, not a folder; name a data set's: expected"),
        (["--ckpt", "CKPT", "--device", "cuda"], "no GPU"),
        (
            ["--ckpt", "CKPT", "--dense", "--heads-only"],
            "--heads-only: --dense trains a model without decisions: leave it out",
        ),
        (["--ckpt", "CKPT", "--dense", "--policy", "dynamicvit"], "--policy: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--ratio", "0.9"], "--ratio: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--decision-layers", "99"], "--decision-layers: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--threshold", "0.9"], "--threshold: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--merge-cells", "4"], "--merge-cells: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--no-merge"], "--no-merge: --dense trains"),
        (["--ckpt", "CKPT", "--dense", "--alpha", "0.5"], "--alpha: --dense trains"),
        (
            ["--ckpt", "CKPT", "--dense", "--beta", "1"],
            "--beta: --dense has no teacher to follow by itself: give --teacher",
        ),
        (["--new", "CKPT", "--beta", "1"], "--beta: --new has no teacher"),
        (["--ckpt", "CKPT", "--heads-only", "--beta", "1"], "--beta: --heads-only leaves the segmenter as it is"),
        (["--ckpt", "CKPT", "--heads-only", "--teacher", "CKPT"], "--teacher: --heads-only leaves"),
        (["--ckpt", "CKPT", "--beta", "0", "--teacher", "CKPT"], "--teacher: --beta 0 leaves self-distillation out"),
        (
            ["--ckpt", "CKPT", "--ratio", "0.7"],
            "--ratio: the confidence decides how many tokens stay, not --policy dynamicvit",
        ),
        (["--ckpt", "CKPT", "--policy", "dynamicvit", "--threshold", "0.9"], "--threshold: --policy dynamicvit has"),
        (["--ckpt", "CKPT", "--policy", "dynamicvit", "--merge"], "--merge: --policy dynamicvit has"),
        (["--ckpt", "CKPT", "--policy", "dynamicvit", "--alpha", "1"], "--alpha: --policy dynamicvit has"),
        (
            ["--ckpt", "CKPT", "--val", "none", "--val-every", "2"],
            "--val-every: --val none validates nothing: leave it out",
        ),
        (["--ckpt", "CKPT", "--val", "none", "--val-limit", "2"], "--val-limit: --val none validates"),
        (["--ckpt", "CKPT", "--data", "noval", "--val-every", "2"], "noval/images/val: no images in it"),
        (["--ckpt", "CKPT", "--data", "noval", "--val-limit", "2"], "noval/images/val: no images in it"),
        (
            ["--ckpt", "CKPT", "--data", "half"],
            "half/labels/val/0.png: no labels for half/images/val/0.png; each image in half/images/val needs labels of the same "
            "name in half/labels/val, and the reverse; or train without validation: --val none\n",
        ),
        (
            ["--ckpt", "folder", "--out", "folder"],
            "--out folder/model.safetensors: would take the place of what --ckpt reads",
        ),
        (
            ["--ckpt", "CKPT", "--teacher", "folder/model.safetensors", "--out", "folder"],
            "what --teacher reads: give another",
        ),
        (
            ["--ckpt", "CKPT", "--head", "folder/model.safetensors", "--out", "folder"],
            "what --head reads: give another folder",
        ),
        (["--ckpt", "CKPT", "--reduce-zero-label"], "label 0 is a class of the streets"),
        (["--ckpt", "CKPT", "--heads-only", "--freeze-backbone"], "give one of the two"),
        (["--new", "CKPT"], "cannot be read"),
        (
            ["--new", "new.json", "--image-size", "100x100"],
            "new.json cannot be changed so: image size (100, 100) is not divisible by the patch size 16",
        ),
        (["--new", "new.json", "--heads-only"], "--heads-only: --new begins with random weights"),
        (["--new", "new.json", "--freeze-backbone"], "--freeze-backbone: --new begins with random weights"),
        (["--new", "CKPT", "--arch", "setr-mla"], "--arch is for --ckpt"),
        (["--new", "CKPT", "--decoder-layers", "2,4"], "--decoder-layers is for --ckpt"),
        (["--new", "CKPT", "--decision-layers", "2,3"], "--decision-layers is for --ckpt"),
        (["--new", "CKPT", "--head", "CKPT"], "--head is for --ckpt"),
        (["--new", "CKPT", "--no-head-norm"], "--no-head-norm is for --ckpt"),
        (["--new", "CKPT", "--classes", "5"], "--classes is for --ckpt"),
        (["--ckpt", "CKPT", "--dense", "--head-norm"], "--head-norm: --dense trains"),
        (["--ckpt", "CKPT", "--policy", "dynamicvit", "--no-head-norm"], "--no-head-norm: --policy dynamicvit has"),
        (["--ckpt", "CKPT", "--decoder-layers", "2,x"], "--decoder-layers 2,x: give numbers separated by commas"),
        (
            ["--ckpt", "CKPT", "--out", "new.safetensors"],
            "new.safetensors: the name of a file; give a folder, such as new",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    checkpoint: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    sentence: str,
) -> None:
    from dovit.training.cli.train import main

    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    without_validation(tmp_path / "noval")
    without_validation(tmp_path / "half")
    (tmp_path / "half" / "images" / "val").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "half" / "images" / "val" / "0.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(b"")  # in whose place a model.safetensors would be read
    (tmp_path / "new.json").write_text(street_config().model_dump_json())
    arguments = [str(checkpoint) if one == "CKPT" else one for one in more]
    monkeypatch.setattr(sys, "argv", ["dovit-train", "--data", "streets:4", "--out", "out", "--steps", "1", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    error = capfd.readouterr().err
    assert end.value.code in (1, 2) and sentence in error and error.count("\n") == 1
