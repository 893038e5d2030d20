"""The losses against their formulas, pixel by pixel in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dovit.training.losses import cross_entropy, self_distillation, strided


def made(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(2, 5, 4, 6, generator=noise, dtype=torch.float64)
    teacher = 3 * torch.randn(2, 5, 4, 6, generator=noise, dtype=torch.float64)
    labels = torch.randint(0, 5, (2, 16, 24), generator=noise)
    labels[:, :3, :5] = 255
    return student, teacher, labels


def probabilities(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    up = F.interpolate(logits, size, mode="bilinear", align_corners=False).numpy()
    return np.exp(up) / np.exp(up).sum(axis=1, keepdims=True)


def test_cross_entropy_is_equation_9() -> None:
    student, _, labels = made(1)
    p, total, count = probabilities(student, (16, 24)), 0.0, 0
    for b, y, x in np.ndindex(2, 16, 24):
        if labels[b, y, x] != 255:
            total -= math.log(p[b, labels[b, y, x], y, x])
            count += 1
    assert count == labels.numel() - 30
    assert cross_entropy(student, labels).item() == pytest.approx(total / count, rel=1e-5)


def test_nothing_but_ignored_pixels_is_zero_and_has_a_gradient() -> None:
    student = made(2)[0].requires_grad_()
    loss = cross_entropy(student, torch.full((2, 8, 8), 255))
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and not student.grad.any()


def test_self_distillation_is_equation_11() -> None:
    """Σ p_s log(p_s/p_t), in this order of student and teacher, mean over pixels."""
    student, teacher, _ = made(3)
    p_s, p_t = probabilities(student, (16, 24)), probabilities(teacher, (16, 24))
    expected = (p_s * np.log(p_s / p_t)).sum(axis=1).mean()
    turned = (p_t * np.log(p_t / p_s)).sum(axis=1).mean()
    found = self_distillation(student, teacher.requires_grad_(), (16, 24))
    assert found.item() == pytest.approx(expected, rel=1e-5) and abs(expected - turned) > 0.01
    assert self_distillation(student, student, (16, 24)).item() == pytest.approx(0, abs=1e-7)


def test_stride_takes_the_middle_of_each_square() -> None:
    labels = torch.arange(64).reshape(1, 8, 8)
    assert strided(labels, 4).tolist() == [[[18, 22], [50, 54]]]
    assert torch.equal(strided(labels, 1), labels)
