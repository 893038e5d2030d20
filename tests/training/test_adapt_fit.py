"""What dovit-adapt fits decision by decision, against independent closed-form solutions and the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from adaptable import (
    SEVERAL_LAYERS,
    adaptable,
    dense_model,
    photos,
    probabilities_of,
    reads_last_layer_alone,
    tokens_after,
)
from models import randomised
from PIL import Image

from dovit.export.model import DoViT
from dovit.export.model.eomt import Eomt
from dovit.export.model.lens import Correction, Lens, TokenwiseMap
from dovit.export.model.token_pass import TokenState, gather, reconstruct, with_tokens
from dovit.runtime.progress import no_progress
from dovit.training.adapt.features import compute_features
from dovit.training.adapt.fit import RIDGE, decode, distil, fit_correction, fit_lens, probabilities
from dovit.training.adapt.images import Files
from dovit.training.adapt.probabilities import divergence
from dovit.training.adapt.run import Adaptation, adapted_config
from dovit.training.adapt.states import States, correct, pass_decision


def test_the_ridge_regression_is_the_augmented_least_squares(tmp_path: Path) -> None:
    """Ridge is least squares with √λ·I appended: solved here by SVD in float64, over other code's features."""
    model = randomised(adapted_config(dense_model().config, Adaptation((2,), (0.5,))))
    files = photos(tmp_path / "photos", model, 6)
    (tmp_path / "states").mkdir()
    states = States(tmp_path / "states")
    features = compute_features(model, Files(files), tmp_path, no_progress, states)
    lens = TokenwiseMap(64, 0).requires_grad_(False)
    fit_lens(lens, states, features, 4, range(6), 1)
    x = torch.cat([tokens_after(model, file, 2) for file in files]).half().double().numpy()
    y = torch.cat([tokens_after(model, file, 4) for file in files]).half().double().numpy()
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = RIDGE * np.mean(np.sum(x * x, axis=0))
    augmented = np.concatenate([x, np.sqrt(ridge) * np.eye(x.shape[1])])
    solved = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]
    np.testing.assert_allclose(lens.linear.weight.numpy(), solved[:-1].T, atol=2e-3)
    np.testing.assert_allclose(lens.linear.bias.numpy(), solved[-1], atol=2e-3)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    "decoder", ["segmenter-linear", "segmenter-mask", "setr-naive", "setr-pup", "eomt", *SEVERAL_LAYERS]
)
def test_distillation_lowers_the_divergence(decoder: str, kernel: int, tmp_path: Path) -> None:
    dense = dense_model(decoder)
    how = Adaptation((2,), (0.5,), 16, kernel, correct=reads_last_layer_alone(dense))
    model = DoViT(adapted_config(dense.config, how)).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    states = States(tmp_path)
    features = compute_features(model, Files(photos(tmp_path / "photos", dense, 6)), tmp_path, no_progress, states)
    lens = cast(Lens, model.lenses[0])
    fit_lens(lens, states, features, 4, range(6), 1)

    def through_lens(state: TokenState) -> torch.Tensor:
        return reconstruct(model.through_lens(0, state), 1)

    def over_all() -> float:
        with torch.no_grad():
            mapped = [through_lens(states.get(image)) for image in range(6)]
            logits = decode(model, states, features, range(6), mapped)
            return float(divergence(model, logits, probabilities(model, features, range(6))))

    before = over_all()
    lens.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    distil(
        model,
        through_lens,
        list(lens.parameters()),
        states,
        features,
        range(6),
        steps=40,
        lr=1e-3,
        generator=generator,
        progress=lambda done: None,
    )
    assert over_all() < 0.8 * before
    assert lens.neighbours is None or lens.neighbours.out.weight.any()


@pytest.mark.parametrize("decoder", ["segmenter-linear", "setr-pup", "eomt", *SEVERAL_LAYERS])
def test_without_labels_heads_learn_what_the_whole_model_says_of_a_patch(decoder: str, tmp_path: Path) -> None:
    """An EoMT's at the size of its masks, which leaves its decoder nothing to resize."""
    dense = dense_model(decoder)
    if dense.config.queries:
        dense.decoder.image_size = tuple(4 * side for side in dense.config.grid)
    files = photos(tmp_path / "photos", dense, 2)
    model = randomised(adapted_config(dense.config, Adaptation((2,), (0.5,), correct=reads_last_layer_alone(dense))))
    model.load_state_dict(dense.state_dict(), strict=False)
    features = compute_features(model, Files(files), tmp_path, no_progress)
    for number, file in enumerate(files):
        with torch.no_grad():
            logits = dense(torch.from_numpy(np.array(Image.open(file)))[None]).logits
        made = probabilities_of(dense, logits)[0]  # [C, h, w]
        rows, columns = dense.config.grid
        patches = made.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).mean(dim=(2, 4)).flatten(1).T  # [N, C]
        error = (features.targets(number) - patches).abs().mean() / patches.std(dim=0).mean()
        assert error < 1e-5  # of what differs from patch to patch


@pytest.mark.parametrize(
    ("decoder", "merge_cells"),
    [("segmenter-linear", 0), ("segmenter-linear", 3), *((one, 3) for one in SEVERAL_LAYERS), ("eomt", 0)],
)
def test_states_are_those_of_the_model_itself(decoder: str, merge_cells: int, tmp_path: Path) -> None:
    """Moved through both decisions, one after the other, as `follow` moves them, with another rounding. An EoMT's through the
    first alone: queries join behind the second, and nothing is fitted there."""
    model, states, files = adaptable(tmp_path, decoder, merge_cells=merge_cells)
    features = compute_features(model, Files(files), tmp_path, no_progress, states)
    passed = 1 if model.config.queries else 2
    for number in range(passed):
        pass_decision(model, number, states, range(6))
        if reads_last_layer_alone(model):
            correct(model, number, states, range(6))
    for image, file in enumerate(files):
        with torch.no_grad():
            output = model(torch.from_numpy(np.array(Image.open(file)))[None])
            state = states.get(image)
            assert 0 < state.index.shape[1] < 24
            assert state.index.tolist() == output.decisions[0][passed - 1].kept.tolist()
            if model.config.queries:
                continue
            logits = decode(model, states, features, [image], [reconstruct(state, model.config.prefix)])
        torch.testing.assert_close(logits, output.logits, rtol=0.02, atol=0.02)


def test_the_correction_is_the_least_squares_of_what_stopping_changed(tmp_path: Path) -> None:
    """Against least squares in float64 by SVD, over tokens that another formulation of the pass makes."""
    model, states, files = adaptable(tmp_path)
    features = compute_features(model, Files(files), tmp_path, no_progress, states)
    before = [states.get(image) for image in range(6)]
    pass_decision(model, 0, states, range(6))
    correction = cast(Correction, model.corrections[0])
    fit_correction(correction, states, features, 3, range(6))
    rows, wanted = [], []
    for image, (file, state) in enumerate(zip(files, before, strict=True)):
        kept = (model.confidence(0, model.through_lens(0, state))[0] <= model.config.thresholds[0]).nonzero().flatten()
        short = gather(state, kept[None], 1, merge=False)
        x = model.backbone.layers[2](with_tokens(short, short.tokens).tokens)[0, 1:].half().double().numpy()
        stopped = 1 - len(kept) / 24
        rows.append(stopped * np.concatenate([x, np.ones((len(x), 1))], axis=1))
        wanted.append(tokens_after(model, file, 3)[kept].half().double().numpy() - x)
        assert states.get(image).index.tolist() == [kept.tolist()]
    x, y = np.concatenate(rows), np.concatenate(wanted)
    assert 64 < len(x) < 6 * 24
    ridge = RIDGE * np.mean(np.sum(x * x, axis=0))
    augmented = np.concatenate([x, np.sqrt(ridge) * np.eye(65)])
    solved = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros((65, 64))]), rcond=None)[0]
    np.testing.assert_allclose(correction.linear.weight.numpy(), solved[:-1].T + np.eye(64), atol=5e-3)
    np.testing.assert_allclose(correction.linear.bias.numpy(), solved[-1], atol=5e-3)


def test_an_eomt_is_decoded_at_the_size_of_its_masks() -> None:
    """What the whole decoder makes where masks of that size are asked for, which leaves nothing to resize."""
    model = dense_model("eomt").eval()
    full = torch.randn(2, model.config.tokens, 64)
    queries = torch.randn(2, model.config.queries, 64)
    with torch.no_grad():
        predicted = [*cast(Eomt, model.decoder).predict(queries)]
        made = model.decode(full, predicted, resize_masks=False)
        model.decoder.image_size = tuple(4 * side for side in model.config.grid)  # two upsamplings
        torch.testing.assert_close(made, model.decode(full, predicted))
