"""The objective: the paper's sum of losses, its teacher, and images that keep no token."""

import pytest
import torch
from models import random_images, randomised, small_config, spreading_thresholds

from dovit.training.objective import Objective


def test_objective_is_the_papers_sum() -> None:
    model, teacher = randomised(small_config(), 1).requires_grad_(), randomised(small_config(), 2)
    images, labels = random_images(model.config, batch=2), torch.randint(0, 7, (2, 64, 96))
    thresholds = spreading_thresholds(model, images)
    parts = Objective(model, thresholds, teacher, alpha=0.7, beta=0.4)(images, labels)
    expected = parts["segmentation"] + 0.7 * (parts["head1"] + parts["head2"]) + 0.4 * parts["distillation"]
    torch.testing.assert_close(parts["loss"], expected)
    assert parts["distillation"] > 0 and 0 < parts["kept"][1] < parts["kept"][0] < 24


def test_the_teacher_stops_no_token_and_learns_nothing() -> None:
    """At ξ = 1 the student is its own dense teacher: nothing to distil. The teacher's own ξ plays no part."""
    model = randomised(small_config(thresholds=(0.2, 0.2))).requires_grad_()
    teacher = randomised(small_config(thresholds=(0.2, 0.2)))
    objective = Objective(model, (1, 1), teacher, alpha=1, beta=1)
    parts = objective(random_images(model.config, batch=2), torch.randint(0, 7, (2, 64, 96)))
    assert parts["distillation"].item() == pytest.approx(0, abs=1e-6)
    parts["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert {name.split(".")[0] for name in objective.state_dict()} == {"model"}


def test_images_with_no_token_left() -> None:
    model = randomised(small_config()).requires_grad_()
    parts = Objective(model, (0, 0), None, 1, 0.4)(random_images(model.config, 2), torch.randint(0, 7, (2, 64, 96)))
    parts["loss"].backward()
    assert parts["kept"].tolist() == [0, 0] and "head2" not in parts
