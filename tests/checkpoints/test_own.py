"""dovit's own checkpoints of the backbones that other families bring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import BACKBONES, random_images, randomised, small_config

from dovit.export.checkpoints import ReadOptions, load_model, save_model


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("family", BACKBONES)
def test_other_backbones_are_saved_and_read(family: str, suffix: str, tmp_path: Path) -> None:
    """Registers, SwiGLU and rotary positions. Rotary ones for another size are those of a model that was made for it."""
    model = randomised(small_config("segmenter-linear-taps", family=family))
    file = tmp_path / f"model{suffix}"
    save_model(model, file)
    read = load_model(file).model
    image = random_images(model.config)
    assert read.config == model.config and torch.equal(read(image).logits, model(image).logits)
    larger = load_model(file, ReadOptions(image_size=(96, 80))).model
    assert larger.config.grid == (6, 5)
    if model.config.backbone.rotary:
        same = randomised(small_config("segmenter-linear-taps", family=family, image_size=(96, 80)))
        image = random_images(same.config)
        assert torch.equal(larger(image, (1.0, 1.0)).logits, same(image, (1.0, 1.0)).logits)


def test_lenses_are_saved_and_read(tmp_path: Path) -> None:
    """--dense leaves them out; a file without lenses does not name them, so that versions without lenses read it."""
    model = randomised(small_config("setr-pup", head="lens"))
    file = tmp_path / "model.safetensors"
    save_model(model, file)
    read = load_model(file).model
    image = random_images(model.config)
    assert read.config == model.config and torch.equal(read(image).logits, model(image).logits)
    dense = load_model(file, ReadOptions(dense=True)).model
    assert torch.equal(dense(image).logits, model(image, (1.0, 1.0)).logits)
    assert "lens" not in small_config("setr-pup").model_dump_json()
