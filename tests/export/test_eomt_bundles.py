"""From a Hugging Face folder of an EoMT to a bundle: what it computes, against the real transformers and its image processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from installed import require

require("transformers")
from bundles import make_bundle
from oracle.eomt import KINDS, save, scores, small
from oracle.huggingface import difference, images
from transformers import EomtImageProcessor
from typed import Typed

import dovit
from dovit.export import cli
from dovit.export.checkpoints import ReadOptions, load_model

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("kind", KINDS)
def test_whole_and_slide(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    folder = save(theirs, tmp_path, do_split_image=True, size={"shortest_edge": 80, "longest_edge": None})
    make_bundle(load_model(folder, ReadOptions(untrained=True, decision_layers=(2, 3))).model, tmp_path / "engines")
    processor = EomtImageProcessor(**json.loads((folder / "preprocessor_config.json").read_text()))
    with dovit.load(tmp_path / "engines") as session:
        [image] = images((80, 80), batch=1)
        made = session(image.numpy(), threshold=1.0, return_logits=True)
        assert made.logits is not None and made.kept == (25, 25)
        assert difference(made.logits, scores(theirs, image[None])[0].numpy()) < 1e-4
        assert session(image.numpy(), keep=(0.5, 0.25)).kept == (13, 6)
        assert session(image.numpy(), threshold=0.0).kept == (1, 1)
        for size in ((80, 131), (160, 80)):  # the processor's windows, once they are as high or wide as the image
            [longer] = images(size, batch=1)
            inputs = processor(longer.permute(2, 0, 1), return_tensors="pt")
            assert len(inputs["pixel_values"]) == 2
            with torch.no_grad():
                outputs = theirs(**inputs)
            [expected] = processor.post_process_semantic_segmentation(
                outputs,
                [size],
                # left to itself it takes the size of the windows alone, which is no size for its masks
                size={"shortest_edge": 80, "longest_edge": None},
                return_segmentation_scores=True,
            )
            made = session(longer.numpy(), threshold=1.0, return_logits=True)
            assert made.logits is not None
            assert difference(made.logits, expected.segmentation_scores.numpy()) < 1e-4
            assert (made.labels == expected.segmentation.numpy()).mean() >= 0.999


def test_the_command_and_a_dense_bundle(tmp_path: Path, typed: Typed) -> None:
    """dovit-export --ckpt FOLDER --dense, verified."""
    theirs = small("eomt")
    folder, out = save(theirs, tmp_path / "folder"), tmp_path / "engines"
    status, said, err = typed(cli, "--ckpt", folder, "--dense", "--out", out, "--backend", "onnxruntime")
    assert status == 0 and "num_blocks" in said, err
    image = images((80, 80), batch=1)
    with dovit.load(out) as session:
        made = session(image[0].numpy(), return_logits=True)
    assert made.logits is not None
    assert difference(made.logits, scores(theirs, image)[0].numpy()) < 1e-4
