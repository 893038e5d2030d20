"""From a Hugging Face folder and a head's file to a bundle: what it computes, against the real transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from installed import require

require("transformers")
from bundles import make_bundle
from oracle.huggingface import difference, images
from oracle.segmenters import KINDS, Segmenter
from typed import Typed

import dovit
from dovit.export import cli
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.bundle.open import open_bundle

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_and_slide(kind: str, count: int, tmp_path: Path) -> None:
    theirs = Segmenter.of(kind, (6,) if count == 1 else (1, 3, 5, 6))
    folder, head = theirs.save(tmp_path)
    patch = 16 if kind.startswith("dinov3") else 14
    size = (4 * patch, 7 * patch)
    changes = ("head.layers=(1,3,5,6)",) if count == 4 else ()
    options = ReadOptions(
        head=head,
        image_size=size,
        stride=(2 * patch, 5 * patch),
        changes=changes,
        untrained=True,
        decision_layers=(2, 4),
    )
    model = load_model(folder, options).model
    make_bundle(model, tmp_path / "engines")
    with dovit.load(tmp_path / "engines") as session:
        [image] = images(size, batch=1)
        made = session(image.numpy(), threshold=1.0, return_logits=True)
        assert made.logits is not None and made.kept == (28, 28)
        assert difference(made.logits, theirs.logits(image[None])[0].numpy()) < 1e-4
        [larger] = images((9 * patch + 3, 8 * patch + 5), batch=1)
        made = session(larger.numpy(), threshold=1.0, mode="slide", return_logits=True)
        expected = theirs.slide(larger, size, (2 * patch, 5 * patch))
        assert made.logits is not None
        assert difference(made.logits, expected.numpy()) < 1e-4
        assert (made.labels == expected.argmax(0).numpy()).mean() >= 0.999
        with torch.no_grad():  # token pass in the bundle is token pass in torch
            half = session(image.numpy(), keep=(0.5, 0.25))
            assert half.kept == (14, 7)


@pytest.mark.parametrize("kind", ["dinov2", "dinov3"])
def test_the_command(kind: str, tmp_path: Path, typed: Typed) -> None:
    """dovit-export --ckpt FOLDER --head FILE, verified; a second export finds that nothing changed, and a third that the
    preprocessor did."""
    theirs = Segmenter.of(kind, (6,))
    folder, head = theirs.save(tmp_path)
    out = tmp_path / "engines"
    command = ("--ckpt", folder, "--head", head, "--dense", "--out", out, "--backend", "onnxruntime")

    def export(*arguments: str | Path) -> str:
        status, out, err = typed(cli, *arguments)
        assert status == 0, err
        return out

    assert "preprocessor_config.json: image_mean" in export(*command)
    source = open_bundle(out).manifest.source
    assert "ONNX files as they were" in export(*command) and open_bundle(out).manifest.source == source
    about = folder / "preprocessor_config.json"
    about.write_text(about.read_text().replace("0.485", "0.5"))
    export(*command)
    assert open_bundle(out).manifest.mean[0] == pytest.approx(127.5)
    image = images(open_bundle(out).manifest.image_size, batch=1)
    with dovit.load(out) as session:
        assert np.unique(session(image[0].numpy()).labels).size > 1
