"""The command dovit-adapt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adaptable import (
    dense_model,
    photos,
)
from models import randomised
from PIL import Image
from typer.testing import CliRunner

from dovit.export.checkpoints import load_model, save_model
from dovit.training.adapt.run import Adaptation, adapted_config
from dovit.training.cli.adapt import command, main

Refused = Callable[..., list[str]]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The lines on stderr of the command with these arguments, which end it with status 1 or 2 and a sentence."""

    def run(*given: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["dovit-adapt", *given])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err.splitlines()
        assert end.value.code in (1, 2) and said[-1].startswith("dovit-adapt: error: "), said
        return said

    return run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threshold", "0"], r"--threshold 0 would stop every token.* 7 classes .* 0\.143"),
        (["--threshold", "0.9,0.14"], r"--threshold 0\.14 would stop every token"),
        (["--threshold", "1"], r"--threshold 1 would stop no token, .* for one of the decisions at least"),
        (["--threshold", "1,1"], "would stop no token"),
        (["--threshold", "0.9,0.9,0.9"], "3 thresholds for 2 decisions"),
        (["--decision-layers", "0,2"], r"--decision-layers 0,2: give ascending layers from 1 to 3"),
        (["--decision-layers", "2,4"], "from 1 to 3"),
        (["--decision-layers", "999"], "from 1 to 3"),
        (["--decision-layers", "2,1"], "ascending"),
        (["--merge", "--merge-cells", "4"], r"\(--merge\) or by cell \(--merge-cells\): give one of them"),
        (["--hidden", "0", "--kernel", "3"], "--kernel 3 with --hidden 0: .* give --hidden channels too"),
        (["--refine", "--hidden", "0"], "--refine with --hidden 0: .* give --hidden channels too"),
        (["--kernel", "4"], "--kernel 4: give an odd number"),
        (["--kernel", "9"], "'--kernel': Input should be less than or equal to 7"),
        (["--lr", "nan"], "--lr"),
        (["--limit", "1"], "--limit"),
        (
            ["--out", "dense.safetensors/adapted.pth"],
            "dense.safetensors: cannot be made a folder .*; give --out another one",
        ),
        (["--out", "dense.safetensors"], "dense.safetensors: would take the place of what --ckpt reads: name another"),
        (["--out", "link.safetensors"], "link.safetensors: would take the place of what --ckpt reads"),
        (["--ckpt", "folder", "--out", "folder/model.safetensors"], "would take the place of what --ckpt reads"),
        (["--ckpt", "shards", "--out", "shards/1.safetensors"], "would take the place of what --ckpt reads"),
        (["--ckpt", "shards", "--out", "shards/model.safetensors"], "would take the place of what --ckpt reads"),
        (["--head", "head.pth", "--out", "head.pth"], "head.pth: would take the place of what --head reads"),
        (["--images", "photos/0.png"], "--images: 1 image; give two or more"),
        (["--data", "data"], "give --images, files without labels, or --data, a data set with labels: one of the two"),
        (["--reduce-zero-label"], "--reduce-zero-label: --images have no labels: leave it out"),
        (["--keep-zero-label"], "--keep-zero-label: --images have no labels: leave it out"),
        (["--images", "nope"], "error: nope: no such file or folder; check the path"),
        (["--images", "dense.safetensors"], "dense.safetensors: not an image"),
        (["--ckpt", "nope.pth"], "error: nope.pth: no such checkpoint"),
        (["--ckpt", "nope.pth", "--images", "photos/0.png"], "error: nope.pth: no such checkpoint"),
    ],
)
def test_options_are_refused_before_the_work(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    model = dense_model()
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "dense.safetensors")
    (tmp_path / "link.safetensors").symlink_to("dense.safetensors")
    for name in ("folder/model.safetensors", "shards/1.safetensors", "head.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "dense.safetensors").read_bytes())
    index = {"weight_map": {"a": "1.safetensors"}}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    before = files_in(tmp_path)
    photos(tmp_path / "photos", model, 2)
    monkeypatch.setattr("dovit.training.adapt.run.compute_features", work)
    default = {"--ckpt": "dense.safetensors", "--images": "photos", "--out": "adapted.safetensors"}
    given = [text for flag, value in default.items() if flag not in options for text in (flag, value)]
    (said,) = refused(*given, *options)
    assert re.search(sentence, said)
    assert {name: content for name, content in files_in(tmp_path).items() if "photos" not in name} == before


def files_in(folder: Path) -> dict[str, bytes]:
    """The contents, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give --images, files without labels, or --data, a data set with labels: one of the two"),
        (["--data", "data", "--recursive"], "--recursive: it is about folders of --images: leave it out"),
        (["--data", "nope"], "nope: no such folder; name a data set's"),
        (["--data", ""], r"no folder is named \(an empty variable\?\); name a data set's"),
        (["--data", "data", "--limit", "2"], r"labels/0\.png: label value 7 is neither below 7 nor 255"),
        (["--data", "streets:9"], "streets:9: the data set has 19 classes, not 7"),
        (["--data", "one"], "--data: 1 image; give two or more"),
    ],
)
def test_labelled_data_that_do_not_serve(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    model = dense_model()
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "dense.safetensors")
    for folder, count in (("data", 4), ("one", 1)):
        (tmp_path / folder / "labels").mkdir(parents=True)
        for file in photos(tmp_path / folder / "images", model, count):
            labels = np.zeros((64, 96), np.uint8) + 7 * (folder == "data" and file.stem == "0")
            Image.fromarray(labels).save(tmp_path / folder / "labels" / file.name)
    *_, said = refused("--ckpt", "dense.safetensors", "--out", "adapted.safetensors", *options)
    assert re.search(sentence, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "dense.safetensors", "one"]


def test_the_command_with_labels(tmp_path: Path) -> None:
    """Those of the train split, evenly chosen; label 0 is ignored where the option says so, and the others move down by one."""
    import typer

    dense = dense_model()
    save_model(dense, tmp_path / "dense.safetensors")
    for split in ("train", "val"):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "images").mkdir(exist_ok=True)
        for file in photos(tmp_path / "images" / split, dense, 6):
            labels = np.random.default_rng(0).choice(np.arange(8, dtype=np.uint8), (64, 96), p=[0.3, *[0.05] * 6, 0.4])
            Image.fromarray(labels).save(tmp_path / "labels" / split / file.name)
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "adapted.safetensors"
    given = ["--ckpt", str(tmp_path / "dense.safetensors"), "--data", str(tmp_path), "--out", str(out), "--steps", "3"]
    done = CliRunner().invoke(app, [*given, "--joint-steps", "1", "--reduce-zero-label", "--limit", "4", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["images"] == 4 and said["labelled"] is True
    head = load_model(out).model.heads[0]
    assert head.classify.bias.argmax() == 6  # which label 7 has become, the one that most pixels have
    assert ("too few tokens stop" in done.stderr) == (said["macs"] >= 1)
    few = ["--joint-steps", "0", "--reduce-zero-label", "--threshold", "0.9,0.99"]
    done = CliRunner().invoke(app, [*given, *few])
    assert done.exit_code == 0 and "their labels say" in done.stdout, done.output
    assert re.search(r"note: .* computes 1\d\d\.\d% of the MACs: too few tokens stop; lower --threshold", done.stderr)


@pytest.mark.parametrize(
    ("decoder", "refused"),
    [
        (
            "segmenter-linear-taps",
            {"--correct": "also reads layers 1, 3: leave it out", "--refine": "also reads layers 1, 3: leave it out"},
        ),
        (
            "eomt",
            {
                "--correct": "also reads queries, as an EoMT's does: leave it out",
                "--refine": "also reads queries, as an EoMT's does: leave it out",
                "--merge-cells 4": "an EoMT cannot be merged by cell",
                "--decision-layers 1,3": "from 1 to 2; the model has 4, and an EoMT's queries join after layer 2",
            },
        ),
    ],
)
def test_the_command_for_a_decoder_of_more_than_the_last_layer(
    decoder: str,
    refused: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lenses and no corrections, which it refuses where they are asked for."""
    dense = dense_model(decoder)
    monkeypatch.chdir(tmp_path)
    save_model(dense, tmp_path / "dense.safetensors")
    photos(tmp_path / "photos", dense, 3)
    given = ["dovit-adapt", "--ckpt", "dense.safetensors", "--images", "photos", "--out", "adapted.safetensors"]
    for option, words in refused.items():
        monkeypatch.setattr("sys.argv", [*given, *option.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert option.split()[0] in said and words in said and len(said.splitlines()) == 1, said
    monkeypatch.setattr("sys.argv", [*given, "--steps", "2", "--joint-steps", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    config = load_model(tmp_path / "adapted.safetensors").model.config
    assert [(head.layer, head.lens is not None, head.correction) for head in config.decisions] == [
        (1, True, None),
        (2, True, None),
    ]
    assert config.merge_cells == (0 if config.queries else 4)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is read again; an interrupt leaves neither a model nor features."""
    import typer

    dense = dense_model()
    save_model(dense, tmp_path / "dense.safetensors")
    photos(tmp_path / "photos", dense, 5)
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "adapted.safetensors"
    arguments = ["--ckpt", str(tmp_path / "dense.safetensors"), "--images", str(tmp_path / "photos"), "--out", str(out)]
    for given, layers, thresholds, side, lens, refinement in (
        ([], [1, 2], (0.9, 0.95), 4, (16, 7), None),  # hidden: a third of 64 channels, in multiples of 8
        (["--decision-layers", "1,2,3", "--refine"], [1, 2, 3], (0.9, 0.95, 0.98), 4, (16, 7), (16, 7)),
        (["--threshold", "0.8", "--merge", "--hidden", "0"], [1, 2], (0.8, 0.8), 0, (0, 1), None),
        (["--merge-cells", "0", "--hidden", "5", "--kernel", "3"], [1, 2], (0.9, 0.95), 0, (5, 3), None),
    ):
        done = CliRunner().invoke(app, [*arguments, "--steps", "3", "--joint-steps", "1", "--json", *given])
        assert done.exit_code == 0, done.output
        assert "checking on 1 image\n" in done.stderr
        said = json.loads(done.stdout)
        config = load_model(out).model.config
        assert said["images"] == 5 and [d["layer"] for d in said["decisions"]] == layers
        assert config.thresholds == thresholds
        assert all(head.lens and (head.lens.hidden, head.lens.kernel) == lens for head in config.decisions)
        refined = config.refinement and (config.refinement.hidden, config.refinement.kernel)
        assert refined == refinement
        assert (config.merge, config.merge_cells) == ("--merge" in given, side)
        out.unlink()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dovit.training.adapt.run.distil", interrupt)
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense.safetensors", "photos"]


def test_a_model_with_token_pass_gets_another_in_a_folder_that_is_made(tmp_path: Path) -> None:
    import typer

    dense = dense_model()
    save_model(randomised(adapted_config(dense.config, Adaptation((1,), (0.5,)))), tmp_path / "before.safetensors")
    photos(tmp_path / "photos", dense, 3)
    app = typer.Typer()
    app.command()(command)
    given = ["--ckpt", str(tmp_path / "before.safetensors"), "--images", str(tmp_path / "photos")]
    out = tmp_path / "new" / "folder" / "adapted.pth"
    done = CliRunner().invoke(app, [*given, "--out", str(out), "--steps", "3", "--joint-steps", "0"])
    assert done.exit_code == 0, done.output
    words = "before.safetensors has token pass already (decision heads, lenses, corrections), which is left out"
    assert words in done.stderr
    assert [head.layer for head in load_model(out).model.config.decisions] == [1, 2]
