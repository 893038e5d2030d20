"""dovit-adapt as a whole: what it brings nearer to the dense model, what it must not change, what it refuses."""

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
)
from models import random_images, randomised, small_config
from PIL import Image

from dovit.export.model import DoViT
from dovit.export.model.lens import Refinement
from dovit.runtime.errors import DovitError
from dovit.runtime.progress import no_progress
from dovit.training.adapt.features import compute_features
from dovit.training.adapt.images import Files
from dovit.training.adapt.joint import Quality, distil_together, judge
from dovit.training.adapt.probabilities import divergence
from dovit.training.adapt.run import Adaptation, adapt


@pytest.mark.parametrize("correct_too", [False, True])
def test_the_refinement_brings_the_full_sequence_nearer(correct_too: bool, tmp_path: Path) -> None:
    """Fitted by `adapt` behind everything else, it lowers what the same model has without it."""
    dense = dense_model()
    files = photos(tmp_path / "photos", dense, 12)
    how = Adaptation((1, 2), (0.4, 0.4), 16, 3, steps=60, lr=1e-3, correct=correct_too, refine=True)
    model, _ = adapt(dense, Files(files), how, tmp_path, no_progress)
    assert cast(Refinement, model.refinement).out.weight.any()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in dense.state_dict().items())
    without = DoViT(model.config.model_copy(update={"refinement": None})).eval().requires_grad_(False)
    without.load_state_dict({n: v for n, v in model.state_dict().items() if not n.startswith("refinement.")})
    losses = []
    for one in (model, without):
        total = 0.0
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file)))[None]
            with torch.no_grad():
                total += float(divergence(one, one(image).logits, dense(image).logits.softmax(1)))
        losses.append(total / len(files))
    refined, plain = losses
    assert refined < 0.9 * plain, losses


@pytest.mark.parametrize(
    ("decoder", "merge_cells"),
    [("segmenter-linear", 0), ("segmenter-linear", 3), *((one, 0) for one in ("eomt", *SEVERAL_LAYERS))],
)
def test_training_together_brings_the_whole_nearer(decoder: str, merge_cells: int, tmp_path: Path) -> None:
    """What is judged is what the model itself gives, with token pass and without; the frozen layers stay as they are."""
    model, states, files = adaptable(tmp_path, decoder, merge_cells=merge_cells)
    dense = dense_model(decoder)
    frozen = {name: value.clone() for name, value in dense.state_dict().items()}
    features = compute_features(model, Files(files), tmp_path, no_progress, states)

    def check() -> Quality:
        quality = judge(model, Files(files), features, range(6))
        losses = []
        sure = torch.zeros(2)
        left = torch.zeros(2)
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file)))[None]
            with torch.no_grad():
                wanted, output = probabilities_of(dense, dense(image).logits), model(image)
            made = probabilities_of(model, output.logits)
            losses.append(float((wanted * (wanted / made).log()).sum(1).mean()))
            for number, decision in enumerate(output.decisions[0]):
                left[number] += decision.index.shape[1]
                sure[number] += decision.index.shape[1] - decision.kept.shape[1]
        assert quality.divergence == pytest.approx(np.mean(losses), rel=0.02)
        assert [d.confident for d in quality.decisions] == pytest.approx((sure / left).tolist())
        assert 0.6 < quality.macs < 1.3
        return quality

    before = check()
    generator = torch.Generator().manual_seed(0)
    seen: list[int] = []
    distil_together(
        model,
        Files(files),
        features,
        range(6),
        steps=30,
        lr=1e-3,
        generator=generator,
        progress=lambda done: seen.append(done),
    )
    assert check().divergence < 0.7 * before.divergence
    assert seen == list(range(1, 31))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("decoder", "xi", "agreement"),
    [
        ("setr-pup", 0.4, 0.5),
        ("segmenter-linear-taps", 0.4, 0.5),
        ("eomt", 0.16, 0.25),
    ],  # whose scores are nearly equal
)
def test_the_model_stays_as_it_was(decoder: str, xi: float, agreement: float, tmp_path: Path) -> None:
    dense = dense_model(decoder)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    files = photos(tmp_path / "photos", dense, 12)
    how = Adaptation((1, 2), (1.0, xi), 16, 3, steps=30, joint_steps=2, correct=reads_last_layer_alone(dense))
    model, quality = adapt(dense, Files(files), how, tmp_path, no_progress)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.config.thresholds == (1.0, xi) and [h.layer for h in model.config.decisions] == [1, 2]
    first, second = quality.decisions
    assert first.confident == 0 and np.isnan(first.agreement), quality
    assert 0 < second.confident <= 1 and second.agreement > agreement and 0.5 < quality.macs < 1.3, quality
    image = random_images(dense.config)
    with torch.no_grad():
        torch.testing.assert_close(model(image, (1.0, 1.0)).logits, dense(image).logits)
    assert not model.config.merge
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_a_fit_that_diverges_is_refused(tmp_path: Path) -> None:
    dense = dense_model()
    model, _, files = adaptable(tmp_path)
    message = r"has diverged, its loss is (nan|inf): lower --lr, which is 1e\+25"
    with pytest.raises(DovitError, match=message):
        adapt(dense, Files(files), Adaptation((1, 2), (0.9, 0.4), steps=3, lr=1e25), tmp_path, no_progress)
    features = compute_features(model, Files(files), tmp_path, no_progress)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(DovitError, match=message):
        distil_together(
            model, Files(files), features, range(6), steps=3, lr=1e25, generator=generator, progress=lambda done: None
        )


@pytest.mark.parametrize(
    ("decoder", "how", "words"),
    [
        ("eomt", Adaptation((1,), (0.5,)), "corrections are for decoders that read the last layer's .* or queries"),
        ("eomt", Adaptation((1,), (0.5,), correct=False, merge_cells=2), "an EoMT cannot be merged by cell"),
        (
            "eomt",
            Adaptation((5,), (0.5,), correct=False),
            "after layer 5 lies behind layer 4, after which EoMT's queries",
        ),
        ("setr-mla", Adaptation((1,), (0.5,)), "corrections are for decoders that read the last layer's"),
        (
            "segmenter-linear-taps",
            Adaptation((1,), (0.5,), 16, 3, correct=False, refine=True),
            "refinement is for .* decoders that read the last layer's",
        ),
    ],
)
def test_what_a_decoder_does_not_go_with_is_refused(decoder: str, how: Adaptation, words: str, tmp_path: Path) -> None:
    with pytest.raises(DovitError, match=words):
        adapt(randomised(small_config(decoder, layers=())), Files([Path("a"), Path("b")]), how, tmp_path, no_progress)
