"""Heads that dovit-adapt fits to labels: what a patch's labels are, what is fitted to them, and what stays the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adaptable import adaptable, dense_model, photos, reads_last_layer_alone
from models import small_config
from PIL import Image

from dovit.evaluation.data import IGNORE, Sample, open_data
from dovit.export.model import DoViT
from dovit.export.model.heads import DecisionHead
from dovit.export.model.token_pass import TokenState
from dovit.runtime.errors import DovitError
from dovit.runtime.progress import no_progress
from dovit.training.adapt.features import compute_features
from dovit.training.adapt.fit import HEAD_DECAY, _head_data, check_left, fit_head
from dovit.training.adapt.images import Files, Labelled, label_shares, window
from dovit.training.adapt.joint import judge
from dovit.training.adapt.run import Adaptation, adapt


def labels_of(dense: DoViT, file: Path) -> np.ndarray:
    """What the model says of each pixel, moved on by one class: nothing that it would say itself."""
    with torch.no_grad():
        logits = dense(torch.from_numpy(np.array(Image.open(file)))[None]).logits
    pixels = F.interpolate(logits, dense.config.image_size, mode="bilinear")
    return ((pixels.argmax(1)[0] + 1) % dense.config.classes).numpy().astype(np.uint8)


def labelled(folder: Path, dense: DoViT, count: int, ignored: int = 0) -> Labelled:
    """`count` photographs with the labels of `labels_of`, the first `ignored` with none but IGNORE."""
    (folder / "labels").mkdir(parents=True)
    for number, file in enumerate(photos(folder / "images", dense, count)):
        labels = labels_of(dense, file)
        Image.fromarray(np.full_like(labels, IGNORE) if number < ignored else labels).save(
            folder / "labels" / file.name
        )
    dataset = open_data(str(folder), "train", classes=dense.config.classes)
    return Labelled(dataset, range(len(dataset)))


@pytest.mark.parametrize("size", [(48, 64), (90, 70), (200, 300), (64, 96)])
@pytest.mark.parametrize(
    "how", [{"mode": "whole"}, {"mode": "whole", "keep_ratio": True}, {"mode": "slide", "slide_stride": (32, 32)}]
)
def test_labels_lie_where_their_pixels_do(how: dict[str, Any], size: tuple[int, int]) -> None:
    """Four fields of one colour each, whose label is a quarter of their red."""
    config = small_config(**how)
    labels = np.array([[0, 1], [2, 3]], np.uint8).repeat(size[0] // 2, axis=0).repeat(size[1] // 2, axis=1)
    image = np.stack([80 * labels, 0 * labels + 7, 0 * labels], axis=2)
    seen = window(Sample("fields", image, labels), config)
    assert seen.image.shape[:2] == seen.labels.shape == config.image_size
    inside = seen.image[..., 1] == 7
    assert (seen.labels[~inside] == IGNORE).all()
    plain = inside & (seen.image[..., 0] % 80 == 0)  # elsewhere it is two fields' colours mixed
    assert plain.mean() > 0.4 and set(seen.labels[plain]) >= {0, 3}
    wrong = plain & (seen.image[..., 0] // 80 != seen.labels)
    assert wrong.mean() < 0.03  # a nearest label may be the other one beside an edge


def test_shares_of_labels_are_counted_pixel_by_pixel() -> None:
    config = small_config()
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 6, IGNORE], np.uint8), config.image_size)
    labels[:16, :16] = IGNORE
    shares = label_shares(labels, config)
    for token in range(24):
        row, column = divmod(token, 6)
        patch = labels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        counts = [sum(value == label for value in patch.ravel().tolist()) / 256 for label in range(7)]
        assert shares[token].tolist() == pytest.approx(counts)
    assert not shares[0].any()


def test_the_head_is_the_minimum_of_the_cross_entropy_over_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L_CE (9) of the paper in float64, a row for every pixel that is not ignored; patches have all, some or none of theirs."""
    monkeypatch.setattr("dovit.training.adapt.fit.TEMPERATURES", torch.ones(1))
    model, states, _ = adaptable(tmp_path)
    images = labelled(tmp_path / "data", model, 6)
    rng = np.random.default_rng(0)
    first, *others = sorted((tmp_path / "data" / "images").iterdir())
    for other in others:  # the same tokens with other labels, in whose balance the number of pixels counts
        other.write_bytes(first.read_bytes())
    for file in sorted((tmp_path / "data" / "labels").iterdir()):
        labels = rng.integers(0, 7, size=(4, 6, 1, 1)).repeat(16, 2).repeat(16, 3).astype(np.uint8)
        for patch, ignored in zip(labels.reshape(24, 16, 16), rng.choice([0, 8, 15, 16], size=24), strict=True):
            patch[:ignored] = IGNORE
        Image.fromarray(labels.transpose(0, 2, 1, 3).reshape(64, 96)).save(file)
    features = compute_features(model, images, tmp_path, no_progress, states)
    fit_head(model, 0, states, features, range(5), [5], torch.Generator().manual_seed(0))
    rows, labels = [], []
    for number in range(5):
        tokens = model.through_lens(0, states.get(number)).tokens[0, 1:].double()
        normed = F.layer_norm(tokens, (64,), eps=model.config.decisions[0].norm_eps)
        rows.append(normed.reshape(4, 6, 64).repeat_interleave(16, 0).repeat_interleave(16, 1).reshape(-1, 64))
        labels.append(torch.from_numpy(images[number].labels).long().flatten())
    x, y = torch.cat(rows), torch.cat(labels)

    def loss(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x @ w.T + b, y, ignore_index=IGNORE) + HEAD_DECAY * w.square().sum()

    best = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((7, 64), (7,))]
    optimiser = torch.optim.LBFGS(best, max_iter=400, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(*best)
        value.backward()
        return value

    unfitted = float(loss(*best).detach())
    optimiser.step(closure)
    head = cast(DecisionHead, model.heads[0])
    with torch.no_grad():
        fitted = float(loss(head.classify.weight[:, :, 0, 0].double(), cast(torch.Tensor, head.classify.bias).double()))
        least = float(loss(*best))
    assert least <= fitted < least + 0.005 * (unfitted - least), (least, fitted, unfitted)


def classes_by_heads(model: DoViT, file: Path) -> list[torch.Tensor]:
    """[N] of each decision, where no token stops."""
    said = []

    def policy(number: int, seen: TokenState) -> tuple[torch.Tensor, torch.Tensor]:
        said.append(model.head_logits(number, seen)[0].flatten(1).argmax(0))
        return torch.zeros(seen.index.shape), torch.arange(seen.index.shape[1])[None]

    with torch.no_grad():
        model.follow(torch.from_numpy(np.array(Image.open(file)))[None], policy)
    return said


@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "eomt"])
def test_heads_learn_the_labels_and_lenses_the_model(decoder: str, tmp_path: Path) -> None:
    """With labels that are never the model's own, the heads say these, and tokens that stop become what they do without."""
    dense = dense_model(decoder)
    images = labelled(tmp_path / "data", dense, 12)
    files = sorted((tmp_path / "data" / "images").iterdir())
    how = Adaptation((1, 2), (0.5, 0.5), 16, 3, steps=40, joint_steps=2, correct=reads_last_layer_alone(dense))
    taught, quality = adapt(dense, images, how, tmp_path, no_progress)
    own, _ = adapt(dense, Files(files), how, tmp_path, no_progress)
    assert all(torch.equal(taught.state_dict()[name], value) for name, value in dense.state_dict().items())
    as_labelled, as_dense = torch.zeros(2, 2), torch.zeros(2, 2)  # of `taught` and `own`, by decision
    for number, file in enumerate(files):
        labels = torch.from_numpy(label_shares(images[number].labels, dense.config)).argmax(1)
        for row, model in enumerate((taught, own)):
            for decision, classes in enumerate(classes_by_heads(model, file)):
                as_labelled[row, decision] += (classes == labels).float().mean() / 12
                as_dense[row, decision] += ((classes + 1) % 7 == labels).float().mean() / 12
    assert (as_labelled[0] > 0.4).all() and (as_dense[0] < 0.25).all(), (as_labelled, as_dense)
    assert (as_dense[1] > 0.4).all() and (as_labelled[1] < 0.25).all(), (as_labelled, as_dense)
    assert quality.divergence < 0.3, quality


def test_agreement_is_with_the_labels(tmp_path: Path) -> None:
    model, _, _ = adaptable(tmp_path)
    images = labelled(tmp_path / "data", model, 6, ignored=2)
    quality = judge(model, images, compute_features(model, images, tmp_path, no_progress), range(6))
    sure = agreed = 0
    for number, file in enumerate(sorted((tmp_path / "data" / "images").iterdir())):
        with torch.no_grad():
            decision = model(torch.from_numpy(np.array(Image.open(file)))[None]).decisions[0][0]
        labels = torch.from_numpy(label_shares(images[number].labels, model.config))
        judged = (decision.confidence[0] > model.config.thresholds[0]) & labels.any(1)
        sure += int(judged.sum())
        agreed += int((classes_by_heads(model, file)[0] == labels.argmax(1))[judged].sum())
    assert 0 < agreed < sure and quality.decisions[0].agreement == pytest.approx(agreed / sure)


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    dense = dense_model()
    images = labelled(tmp_path / "data", dense, 6)
    first, again, other = (
        adapt(dense, images, Adaptation((1, 2), (0.9, 0.9), 16, 3, 5, seed=seed), tmp_path, no_progress)[0].state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], value) for name, value in again.items())
    assert not all(torch.equal(first[name], value) for name, value in other.items())


@pytest.mark.parametrize(
    ("ignored", "xi", "message"),
    [
        (
            6,
            0.9,
            r"no token with a label that is not ignored in the images: give more labelled images, or --images in the place",
        ),
        (
            0,
            0.15,
            r"no token with a label that is not ignored is left for decision 2 in the images: .* ξ = 0\.15; raise --thr",
        ),
    ],
)
def test_heads_without_a_label_to_learn_are_refused(ignored: int, xi: float, message: str, tmp_path: Path) -> None:
    """None at all; or none that the decision before has left: there are more than 1/7 of certainty for every class."""
    dense = dense_model()
    with pytest.raises(DovitError, match=message):
        adapt(
            dense,
            labelled(tmp_path / "data", dense, 6, ignored),
            Adaptation((1, 2), (xi, xi), steps=2),
            tmp_path,
            no_progress,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("number", [0, 1])
def test_held_out_images_without_labels_are_refused(number: int, tmp_path: Path) -> None:
    """Their temperature would be nobody's: heads that were fitted to few images are far too sure."""
    model, states, _ = adaptable(tmp_path)
    images = labelled(tmp_path / "data", model, 6, ignored=1)
    features = compute_features(model, images, tmp_path, no_progress, states)
    check_left(model, number, states, features, [0, 1], "the images")
    with pytest.raises(
        DovitError, match=r"no token with a label that is not ignored .*in the 1 of them .*: .*give more"
    ):
        check_left(model, number, states, features, [0], "the 1 of them that are held out")


def test_tokens_without_labels_take_no_place_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the patches have labels, and at most half of the tokens may be taken: all that have some are."""
    model, states, _ = adaptable(tmp_path)
    images = labelled(tmp_path / "data", model, 4)
    for file in (tmp_path / "data" / "labels").iterdir():
        labels = np.array(Image.open(file))
        labels[:32] = IGNORE
        Image.fromarray(labels).save(file)
    features = compute_features(model, images, tmp_path, no_progress, states)
    monkeypatch.setattr("dovit.training.adapt.fit.HEAD_TOKENS", 4 * 12)
    inputs, wanted = _head_data(model, 0, states, features, range(4), torch.Generator())
    assert len(inputs) == len(wanted) == 4 * 12 and wanted.any(dim=1).all()
