"""The disk that dovit-adapt writes to: checked before the work, and called full where it fills up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adaptable import (
    dense_model,
    photos,
    reads_last_layer_alone,
)
from models import randomised

from dovit.export.checkpoints import check_space, save_model
from dovit.export.model.token_pass import TokenState
from dovit.runtime.errors import DovitError
from dovit.runtime.progress import no_progress
from dovit.training.adapt.features import check_space_of_features, compute_features
from dovit.training.adapt.images import Files, Labelled
from dovit.training.adapt.run import Adaptation, adapted_config
from dovit.training.adapt.states import States, pass_decision


@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "eomt"])
def test_a_model_larger_than_the_disk_is_refused_before_it_is_fitted(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = dense_model(decoder)
    config = adapted_config(dense.config, Adaptation((1, 2), (0.9, 0.9), correct=reads_last_layer_alone(dense)))
    out = tmp_path / "adapted.safetensors"
    save_model(randomised(config), out)
    size, free = out.stat().st_size, 0
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=1 << 40, used=0, free=free))
    free = size
    check_space(config, out)
    free = size * 9 // 10
    with pytest.raises(DovitError, match=r"adapted.safetensors: the model takes .* GB there, and .* GB are free: "):
        check_space(config, out)


@pytest.mark.parametrize("has_labels", [False, True])
@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "eomt"])
def test_features_larger_than_the_disk_are_refused_before_they_are_computed(
    decoder: str, has_labels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check counts the tokens; what is written besides them, a few kB a file, is less than these."""
    model = dense_model(decoder)
    files = photos(tmp_path / "photos", model, 3)
    config = adapted_config(model.config, Adaptation((1, 2), (0.9, 0.9), correct=reads_last_layer_alone(model)))
    (tmp_path / "scratch").mkdir()
    states, some = States(tmp_path / "scratch"), randomised(config)
    images = Labelled([Files(files)[k] for k in range(3)], range(3)) if has_labels else Files(files)
    compute_features(some, images, tmp_path / "scratch", no_progress, states)
    for number in range(2):
        pass_decision(some, number, states, range(3))
    written = sum(file.stat().st_size for file in (tmp_path / "scratch").iterdir())
    features = sum(file.stat().st_size for file in (tmp_path / "scratch").glob("*.f*"))
    assert (tmp_path / "scratch" / "targets.f32").stat().st_size == 3 * 4 * config.tokens * config.classes
    asked: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr("dovit.training.adapt.features.check_free", lambda folder, needed, *_: asked.append(needed))
        check_space_of_features(config, images, tmp_path)
    states_alone = 3 * 2 * config.tokens * config.backbone.embed_dim * (2 + len(config.taps))
    assert asked == [features + states_alone]

    def disk(free: int) -> Any:
        return lambda folder: SimpleNamespace(total=1 << 40, used=0, free=free)

    monkeypatch.setattr("shutil.disk_usage", disk(written))
    check_space_of_features(config, images, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", disk(written // 2))
    with pytest.raises(
        DovitError, match=r"features of 3 images take .* GB there, and .* GB are free: .* lower --limit"
    ):
        check_space_of_features(config, images, tmp_path)


@pytest.mark.parametrize("name", ["layer2.f16", "queries.f32", "targets.f32", "0.pt"])
def test_a_disk_that_fills_up_is_called_full(name: str, tmp_path: Path) -> None:
    """Files that lead to /dev/full take nothing: the features of a layer, what an EoMT's queries predict, what
    heads learn, and a state."""
    model = randomised(
        adapted_config(dense_model("eomt").config, Adaptation((2,), (0.5,), hidden=0, kernel=1, correct=False))
    )
    files = Files(photos(tmp_path / "photos", model, 2))
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DovitError, match="the disk is full; free some space, or lower --limit"):
        compute_features(
            model, Labelled([*map(files.__getitem__, range(2))], range(2)), tmp_path, no_progress, States(tmp_path)
        )


def test_a_large_state_on_a_full_disk(tmp_path: Path) -> None:
    """Written before the file is closed, where torch meets the error itself."""
    tokens = torch.zeros(1, 100_001, 64)
    (tmp_path / "0.pt").symlink_to("/dev/full")
    with pytest.raises(DovitError, match="the disk is full; free some space, or lower --limit"):
        States(tmp_path).put(0, TokenState.start(tokens, 1))
