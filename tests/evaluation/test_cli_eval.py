"""dovit-eval: what it prints and writes, and what it refuses."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from bundles import make_bundle
from labelled_noise import Images
from models import randomised, small_config
from PIL import Image

from dovit.export.checkpoints import save_model
from dovit.runtime.loading import load
from dovit.training.policies.checkpoint import save_dynamic_vit
from dovit.training.policies.dynamic_vit import DynamicViT
from dovit.training.torch_segmenter import validate


def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    from dovit.training.cli.eval import main

    monkeypatch.setattr("sys.argv", ["dovit-eval", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    output = capfd.readouterr()
    return int(end.value.code or 0), output.out, output.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a checkpoint, and a folder of pairs."""
    model = randomised(small_config())
    root = tmp_path_factory.mktemp("place")
    make_bundle(model, root / "engines")
    save_model(model, root / "model.safetensors")
    for part in ("images", "labels"):
        (root / "data" / part).mkdir(parents=True)
    for number in range(3):
        sample = Images(3)[number]
        Image.fromarray(sample.image).save(root / "data/images" / f"{number}.png")
        Image.fromarray(sample.labels).save(root / "data/labels" / f"{number}.png")
    return root


def test_command_sweeps_and_writes(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, output, errors = command(
        capfd,
        monkeypatch,
        "--engine",
        str(place / "engines"),
        "--data",
        str(place / "data"),
        "--sweep",
        "0.3,0.5/0.3,0.5",
        "--sweep",
        "1",
        "--fixed-ratio",
        "--plot",
        str(tmp_path / "a.png"),
        "--out",
        str(tmp_path / "a.json"),
        "--per-image",
        str(tmp_path / "a.jsonl"),
        "--json",
    )
    assert status == 0, errors
    report = json.loads(output)
    assert report == json.loads((tmp_path / "a.json").read_text())
    assert [s["name"] for s in report["settings"]][:4] == ["ξ = 0.3", "ξ = 0.5/0.3", "ξ = 0.5", "ξ = 1"]
    swept, fixed = report["settings"][:4], report["settings"][4:]
    assert [s["macs_ratio_paper"] for s in swept] == sorted(s["macs_ratio_paper"] for s in swept)
    for ours, theirs in zip(swept, fixed, strict=True):
        assert theirs["counts"] == [round(k) for k in ours["kept"]]
        assert theirs["macs_ratio_paper"] == pytest.approx(ours["macs_ratio_paper"], abs=0.02)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.jsonl", "a.png"]


def test_files_whose_names_are_no_text(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are no UTF-8, as in old archives: in the JSON as what Python makes of them."""
    monkeypatch.chdir(tmp_path)
    ckpt, data = (os.fsdecode(one) for one in (b"model-\xff.safetensors", b"data-\xff"))
    (tmp_path / ckpt).write_bytes((place / "model.safetensors").read_bytes())
    for part in ("images", "labels"):
        (tmp_path / data / part).mkdir(parents=True)
        (tmp_path / data / part / os.fsdecode(b"\xfe.png")).write_bytes((place / "data" / part / "0.png").read_bytes())
    written = ["--out", "a.json", "--per-image", "a.jsonl", "--plot", "a.svg", "--report", "a.html"]
    status, output, errors = command(
        capfd, monkeypatch, "--ckpt", ckpt, "--data", data, "--sweep", "0.5,1", *written, "--json"
    )
    assert status == 0, errors
    report = json.loads(output)
    assert report == json.loads(Path("a.json").read_text()) and (report["ckpt"], report["data"]) == (ckpt, data)
    assert json.loads(Path("a.jsonl").read_text())["name"] == os.path.join(data, "images", os.fsdecode(b"\xfe.png"))


@pytest.mark.parametrize(
    ("model", "output", "option"),
    [
        (["--engine", "engines"], ["--out", "engines/bundle.json"], "--engine"),
        (["--engine", "engines"], ["--per-image", "ONNX"], "--engine"),
        (["--ckpt", "model.safetensors"], ["--out", "model.safetensors"], "--ckpt"),
        (["--ckpt", "model.safetensors"], ["--out", "config.json"], "--ckpt"),
        (["--ckpt", "model.safetensors"], ["--sweep", "0.5,1", "--plot", "data/images/1.png"], "--data"),
        (["--ckpt", "model.safetensors"], ["--sweep", "0.5,1", "--plot", "link.png"], "--data"),
    ],
)
def test_outputs_take_the_place_of_no_input(
    place: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: list[str],
    output: list[str],
    option: str,
) -> None:
    shutil.copytree(place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    Path("link.png").symlink_to("data/labels/2.png")
    path = next(Path("engines").rglob("*.onnx")) if output[-1] == "ONNX" else Path(output[-1])
    before = path.read_bytes() if path.exists() else None
    status, _, errors = command(capfd, monkeypatch, *model, "--data", "data", *output[:-1], str(path))
    assert status == 2 and f"{output[-2]} {path}: would take the place of what {option} reads: name another" in errors
    assert (path.read_bytes() if path.exists() else None) == before


def test_command_on_a_checkpoint_prints_classes(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--ckpt", str(place / "model.safetensors"), "--data", f"folder:{place / 'data'}", "--threshold", "0.5"]
    status, output, errors = command(capfd, monkeypatch, *arguments)
    assert status == 0, errors
    assert "ξ = 0.5" in output and "mIoU" in output and "Classes" in output


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_a_checkpoint_and_its_bundle_run_in_the_same_mode(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """That of the checkpoint, unless --mode says otherwise; so does validation."""
    model = randomised(small_config(mode=mode, slide_stride=(32, 48)))
    make_bundle(model, tmp_path / "engines")
    save_model(model, tmp_path / "model.safetensors")
    engine, ckpt = ["--engine", str(tmp_path / "engines")], ["--ckpt", str(tmp_path / "model.safetensors")]
    other = "whole" if mode == "slide" else "slide"
    found = []
    for given in (engine, ckpt, [*ckpt, "--mode", other]):
        status, output, errors = command(capfd, monkeypatch, *given, "--data", str(place / "data"), "--json")
        assert status == 0, errors
        found.append(json.loads(output))
    assert [one["mode"] for one in found] == [mode, mode, other]
    [bundles], [checkpoints], [others] = (one["settings"] for one in found)
    for name in ("mIoU", "PA", "kept", "macs_ratio_true"):
        assert checkpoints[name] == pytest.approx(bundles[name], abs=0.05)
    assert abs(others["PA"] - bundles["PA"]) > 0.1
    assert validate(model, Images(3))["PA"] == pytest.approx(checkpoints["PA"])


@pytest.mark.parametrize(("decoder", "last"), [("setr-naive", (0.1875, 5)), ("eomt", (0, 1))])
def test_shares_are_the_counts_of_a_session(
    place: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    decoder: str,
    last: tuple[float, int],
) -> None:
    """Half a token counts as one, and a model that keeps a token at least is not asked for none."""
    model, share, count = randomised(small_config(decoder)), *last
    make_bundle(model, tmp_path / "engines")
    save_model(model, tmp_path / "model.safetensors")
    assert load(tmp_path / "engines")(Images(1)[0].image, keep=(0.9375, share)).kept == (23, count)
    for given in (["--engine", str(tmp_path / "engines")], ["--ckpt", str(tmp_path / "model.safetensors")]):
        arguments = [*given, "--data", str(place / "data"), "--keep", f"0.9375,{share}", "--limit", "1", "--json"]
        status, output, errors = command(capfd, monkeypatch, *arguments)
        assert status == 0, errors
        assert json.loads(output)["settings"][0]["kept"] == [23, count]


def test_fixed_ratios_without_pairs_have_no_speed_up(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--engine", str(place / "engines"), "--data", str(place / "data"), "--sweep", "0.5,1", "--fixed-ratio"]
    status, output, errors = command(capfd, monkeypatch, *arguments)
    assert status == 0, errors
    rows = [line for line in output.splitlines() if line.startswith("fixed, as")]
    assert len(rows) == 2 and all(row.split()[-1] == "–" for row in rows)


def test_command_runs_the_dense_model_beside(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--engine", str(place / "engines"), "--data", str(place / "data"), "--sweep", "0.4,0.6", "--dense"]
    written = ["--fixed-ratio", "--plot", str(tmp_path / "a.svg"), "--out", str(tmp_path / "a.json")]
    status, output, errors = command(capfd, monkeypatch, *arguments, *written)
    assert status == 0, errors
    assert "speed-up: over dense, one graph" in output
    report = json.loads((tmp_path / "a.json").read_text())
    assert len(report["settings"]) == 4 and report["dense"]["macs_ratio_true"] == 1
    assert all(one["speedup_median"] > 0 for one in report["settings"])
    assert "speed-up over dense, one graph" in re.sub(r"<!--|-->", "", (tmp_path / "a.svg").read_text())
    for name in ("dovit.training.dense_segmenter", "dovit.export.graph.dense"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnx_graphsurgeon", None)
    status, _, errors = command(capfd, monkeypatch, *arguments)
    assert status == 2 and "pip install 'dovit[export]'" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--data", "DATA"], "either --engine", 2),
        (["--engine", "ENGINE", "--data", "streets:2"], "19 classes", 2),
        (["--engine", "ENGINE", "--data", "nowhere"], "no such folder", 2),
        (["--engine", "nowhere", "--data", "DATA"], "nowhere", 1),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "2"], "outside [0, 1]", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "a"], "numbers", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "0.9,,1"], "--sweep 0.9,,1: give numbers", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "0.9/,1"], "--sweep 0.9/,1: give numbers", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "0.5/0.6/0.7"], "or 2 of them between slashes", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5"], "2 falling shares", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.2,0.5"], "falling", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5,0.2", "--sweep", "1"], "one of", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--plot", "a.png"], "--sweep", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--out", "no/folder/a.json"], "no such folder", 1),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "1", "--plot", "a.doc"], "ends in one of", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5,0.2", "--fixed-ratio"], "one of them", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--out", "a", "--per-image", "a"], "a file each", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--out", "a", "--per-image", "a/../a"], "a file each", 2),
        (["--ckpt", "ENGINE", "--data", "DATA", "--dense"], "for a bundle on a CPU", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--backend", "tensorrt-rtx", "--dense"], "for a bundle on a CPU", 2),
        (["--ckpt", "ENGINE", "--data", "DATA", "--schedule", "bucketed"], "a checkpoint is run by torch", 2),
    ],
)
def test_wrong_usage_is_one_line(
    place: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
    code: int,
) -> None:
    places = {"ENGINE": str(place / "engines"), "DATA": str(place / "data")}
    status, _, errors = command(capfd, monkeypatch, *[places.get(one, one) for one in arguments])
    assert status == code and sentence in errors and errors.count("\n") == 1 and "Traceback" not in errors


def test_command_writes_a_report(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--engine", str(place / "engines"), "--data", str(place / "data"), "--mode", "slide"]
    report = tmp_path / "report.html"
    status, output, errors = command(capfd, monkeypatch, *arguments, "--report", str(report))
    assert status == 0, errors
    assert f"report: {report}" in output
    assert "pixel accuracy" in report.read_text() and "Figure 4" not in report.read_text()  # no sweep
    status, _, errors = command(capfd, monkeypatch, *arguments, "--report", str(tmp_path / "report.pdf"))
    assert status == 2 and "ends in .html" in errors
    monkeypatch.setitem(sys.modules, "plotly", None)
    status, _, errors = command(capfd, monkeypatch, *arguments, "--report", str(report))
    assert status == 2 and "pip install 'dovit[report]'" in errors


@pytest.mark.parametrize(
    "given",
    [
        ["--threshold", "0.9"],
        ["--keep", "0.5"],
        ["--sweep", "0.9,1"],
        ["--fixed-ratio"],
        ["--stopped"],
        ["--schedule", "exact"],
    ],
    ids=lambda given: given[0],
)
def test_options_about_tokens_where_none_stops(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    """Refused for a model without decisions, a bundle's as a checkpoint's, and for a DynamicViT, which has its own counts."""
    dense = randomised(small_config(layers=()))
    make_bundle(dense, tmp_path / "dense")
    save_model(dense, tmp_path / "dense.safetensors")
    save_dynamic_vit(DynamicViT(small_config(), 0.7), tmp_path / "dyvit.safetensors")
    models = ["--engine", "dense"], ["--ckpt", "dense.safetensors"], ["--ckpt", "dyvit.safetensors"]
    for model in models[:1] if given[0] == "--schedule" else models:  # which is for bundles alone
        named = [model[0], str(tmp_path / model[1])]
        status, _, errors = command(capfd, monkeypatch, *named, "--data", str(place / "data"), *given)
        why = "is a DynamicViT, which keeps" if "dyvit" in model[1] else "the model has no decisions"
        assert status == 2 and f"{given[0]}: " in errors and why in errors and errors.count("\n") == 1
