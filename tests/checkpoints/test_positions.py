"""Positions on another grid, against each family's own code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from models import random_images, randomised, small_config
from oracle import mmseg, timm_vit
from torch import Tensor

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.export.checkpoints.own import POSITIONS as OWN
from dovit.export.checkpoints.pos_embed import Interpolation, image_size_for, resize_positions, trained_grid
from dovit.export.checkpoints.rstrudel import POSITIONS as RSTRUDEL
from dovit.export.checkpoints.timm import DEIT_POSITIONS as DEIT
from dovit.export.checkpoints.timm import TIMM_POSITIONS as TIMM
from dovit.runtime.errors import DovitError, UsageError

# trained on → wanted: larger, smaller, equal counts of another shape, mixed, nothing to do
GRIDS = [
    ((8, 8), (12, 10)),
    ((8, 8), (3, 5)),
    ((4, 6), (6, 4)),
    ((4, 9), (6, 6)),
    ((4, 16), (8, 8)),
    ((5, 7), (9, 3)),
    ((4, 6), (4, 6)),
]


def rows(grid: tuple[int, int], prefix: int = 0) -> Tensor:
    return torch.randn(1, prefix + grid[0] * grid[1], 24, generator=torch.Generator().manual_seed(3))


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_as_mmsegmentation(old: tuple[int, int], new: tuple[int, int], mode: str) -> None:
    mmseg.require()
    from mmseg.models.backbones import VisionTransformer

    if (
        mode == "nearest"
    ):  # mmseg's wrapper passes align_corners=False, which torch refuses for nearest: no such model runs
        with pytest.raises(ValueError, match="align_corners"):
            VisionTransformer.resize_pos_embed(rows(old, 1), new, old, mode)
        return
    theirs = VisionTransformer.resize_pos_embed(rows(old, 1), new, old, mode)[0, 1:]
    torch.testing.assert_close(
        resize_positions(rows(old, 1)[0, 1:], new, Interpolation(mode), trained=old), theirs, rtol=0, atol=1e-6
    )


@pytest.mark.oracle
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_as_timm(old: tuple[int, int], new: tuple[int, int]) -> None:
    if reason := timm_vit.available():
        pytest.skip(reason)
    theirs = timm_vit.load()[1](rows(old, 1), list(new), list(old), num_prefix_tokens=1)[0, 1:]
    torch.testing.assert_close(resize_positions(rows(old, 1)[0, 1:], new, TIMM, trained=old), theirs, rtol=0, atol=1e-6)


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, E] float64 → [h', w', E]: pixel centres at halves, coordinates held at the border."""
    for axis, length in enumerate(size):
        old = image.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(3)])
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


def bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, E] float64 → [h', w', E]: Keys' kernel with a = -0.75, four taps at any scale, border pixels repeated."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    for axis, length in enumerate(size):
        old = image.shape[axis]
        matrix = np.zeros((length, old))
        for k in range(length):
            at = (k + 0.5) * old / length - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                matrix[k, min(max(tap, 0), old - 1)] += weight(at - tap)
        image = np.moveaxis(np.tensordot(matrix, np.moveaxis(image, axis, 0), 1), 0, axis)
    return image


@pytest.mark.parametrize(("old", "new"), GRIDS)
@pytest.mark.parametrize("family", ["rstrudel", "deit", "own"])
def test_without_antialiasing(family: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    """segmenter's resize_pos_embed is bilinear and DeiT's bicubic, both without antialiasing: here from their definitions."""
    how, formula = {"rstrudel": (RSTRUDEL, bilinear), "deit": (DEIT, bicubic), "own": (OWN, bicubic)}[family]
    theirs = formula(rows(old)[0].double().numpy().reshape(*old, -1), new).reshape(new[0] * new[1], -1)
    made = resize_positions(rows(old)[0], new, how, trained=old)
    np.testing.assert_allclose(made.numpy(), theirs, rtol=0, atol=2e-5)


def test_the_trained_grid_is_known_or_asked_for() -> None:
    assert trained_grid(36, 16, None) == (6, 6)  # a square where nothing is said
    assert trained_grid(36, 16, (64, 144), (64, 144)) == (4, 9)
    assert trained_grid(36, 16, (64, 144)) == (
        6,
        6,
    )  # an image size to run at does not say what the file was trained on
    assert trained_grid(24, 16, (96, 64), (64, 96)) == (4, 6)
    assert trained_grid(24, 16, (96, 64)) == (6, 4)
    with pytest.raises(UsageError, match="nothing says of which grid"):
        trained_grid(24, 16, (96, 96))
    with pytest.raises(
        DovitError, match=r"says 64×64, which is 4×4 patches of 16, and the checkpoint has 24 positions"
    ):
        trained_grid(24, 16, None, (64, 64))
    assert image_size_for(24, 16, None, (64, 96)) == (64, 96)
    assert image_size_for(24, 16, (32, 32), (64, 96)) == (32, 32)
    with pytest.raises(UsageError, match="the configuration's image size 65x96: both sides"):
        image_size_for(24, 16, None, (65, 96))


def test_own_files_are_resized_where_the_count_is_equal(tmp_path: Path) -> None:
    """4×6 patches as 6×4: resized, not taken in another order."""
    model = randomised(small_config(image_size=(64, 96)))
    save_model(model, tmp_path / "model.safetensors")
    made = load_model(tmp_path / "model.safetensors", ReadOptions(image_size=(96, 64))).model
    positions = model.backbone.pos_embed.detach().double().numpy().reshape(4, 6, -1)
    np.testing.assert_allclose(
        made.backbone.pos_embed.detach().numpy(), bicubic(positions, (6, 4)).reshape(24, -1), rtol=0, atol=2e-5
    )
    with torch.inference_mode():
        assert made(random_images(made.config)).logits.isfinite().all()
