"""The trial of merging on a small model: what decides and what is fitted, and what the command prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import random_images, randomised, small_config
from PIL import Image

from dovit.benchmarks.camvid_cells import ROWS, Row, fit_lenses, main, with_decisions
from dovit.export.checkpoints import save_model
from dovit.export.model import DoViT
from dovit.export.model.config import LensConfig
from dovit.export.model.lens import Lens
from dovit.export.model.token_pass import TokenState
from dovit.runtime.progress import no_progress
from dovit.training.adapt.images import Files


def dense_model(decoder: str = "segmenter-linear") -> DoViT:
    return randomised(small_config(decoder, layers=(), depth=12, embed_dim=32))


def photographs(folder: Path, model: DoViT) -> Path:
    """Three to fit to and two to evaluate, with random labels."""
    for part, count in (("train", 3), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for number, image in enumerate(random_images(model.config, count, seed=count).numpy()):
            Image.fromarray(image).save(folder / "images" / part / f"{number}.png")
            labels = np.random.default_rng(number).integers(0, 7, image.shape[:2], np.uint8)
            Image.fromarray(labels).save(folder / "labels" / part / f"{number}.png")
    return folder


def labels_of(image: Path) -> np.ndarray:
    return np.array(Image.open(str(image).replace("images", "labels")))


def test_the_decoder_decides_behind_the_lens() -> None:
    """q is the largest probability that the decoder gives the lens's output; at ξ = 1 the model is the dense one."""
    dense = dense_model()
    row = Row((2, 4), (1.0, 1.0), 0)
    lenses = {layer: Lens(LensConfig(), 32, dense.config.prefix, dense.config.grid) for layer in row.layers}
    for lens in lenses.values():
        torch.nn.init.normal_(lens.linear.weight, std=0.3)
    model = with_decisions(dense, row, lenses)
    tokens = torch.randn(1, dense.config.prefix + dense.config.tokens, 32)
    patches = lenses[4](tokens[:, dense.config.prefix :])
    expected = dense.decode(patches, []).softmax(dim=1).amax(dim=1).flatten(1)
    found = model.confidence(1, model.through_lens(1, TokenState.start(tokens, dense.config.prefix)))
    torch.testing.assert_close(found, expected)
    images = random_images(dense.config)
    torch.testing.assert_close(model(images).logits, dense(images).logits)


def test_lenses_bring_tokens_to_the_last_layer(tmp_path: Path) -> None:
    dense = dense_model()
    files = sorted((photographs(tmp_path, dense) / "images" / "train").iterdir())
    (tmp_path / "features").mkdir()
    lenses = fit_lenses(dense, Files(files), tmp_path / "features", steps=1, seed=0, progress=no_progress)
    assert list(lenses) == [2, 3, 4, 5, 6, 8, 9]
    tokens = dense.embed(torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files])))
    after = {}
    for number, layer in enumerate(dense.backbone.layers, start=1):
        after[number] = tokens = layer(tokens)
    for number, lens in lenses.items():
        left, mapped = after[number] - after[12], lens(after[number]) - after[12]
        prefix = dense.config.prefix
        assert mapped[:, prefix:].square().mean() < 0.9 * left[:, prefix:].square().mean()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dense mIoU is what a few lines compute, and it leaves its JSON and nothing else."""
    dense = dense_model()
    save_model(dense, tmp_path / "dense.safetensors")
    data = photographs(tmp_path / "data", dense)
    arguments = [str(data), str(tmp_path / "dense.safetensors"), "--steps", "1", "--json", str(tmp_path / "cells.json")]
    monkeypatch.setattr(sys, "argv", ["camvid_cells", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    printed, told = capsys.readouterr().out, json.loads((tmp_path / "cells.json").read_text())
    assert "Lenses fitted to 3 images" in printed and printed.count("cells of") == sum(row.cells > 0 for row in ROWS)
    assert [(row["cells"], tuple(row["layers"])) for row in told["rows"]] == [(row.cells, row.layers) for row in ROWS]
    scores = []
    for file in sorted((data / "images" / "val").iterdir()):
        image = torch.from_numpy(np.array(Image.open(file)))[None]
        scores.append((dense.resize_logits(dense(image).logits)[0].argmax(dim=0).numpy(), labels_of(file)))
    found, truth = (np.stack(maps) for maps in zip(*scores, strict=True))
    shares = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in range(7)]
    assert told["dense"]["mean_iou"] == pytest.approx(100 * np.mean(shares)) and told["dense"]["macs_paper"] == 100
    for row in told["rows"]:
        assert len(row["kept"]) == len(row["layers"]) and row["kept"] == sorted(row["kept"], reverse=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.json", "data", "dense.safetensors"]


def test_other_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, model in (("setr", dense_model("setr-naive")), ("short", randomised(small_config("segmenter-linear")))):
        save_model(model, tmp_path / f"{name}.pth")
        monkeypatch.setattr(sys, "argv", ["camvid_cells", str(tmp_path), str(tmp_path / f"{name}.pth")])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert end.value.code == 2 and "give a model of 12 layers" in said and said.count("\n") == 1
