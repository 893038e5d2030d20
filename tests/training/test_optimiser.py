"""The schedule against the real mmengine's, and learning rates by parameter group."""

import pytest
import torch
from models import randomised, small_config

from dovit.training.optimiser import learning_rate, make_optimiser, set_learning_rate


def test_parameter_groups() -> None:
    model = randomised(small_config()).requires_grad_()
    optimiser = make_optimiser(model, "adamw", 0.01, 0.05, 10.0)
    set_learning_rate(optimiser, 0.002)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    assert set(found) == set(names.values())
    assert found["backbone.layers.0.mlp.fc1.weight"] == (0.002, 0.05)
    assert found["backbone.layers.0.mlp.fc1.bias"] == (0.002, 0.0)
    assert found["backbone.pos_embed"] == found["backbone.layers.0.norm1.weight"] == (0.002, 0.0)
    assert found["heads.0.classify.weight"] == found["decoder.classify.weight"] == (0.02, 0.05)
    sgd = make_optimiser(model, "sgd", 0.01, 0.0005, 1.0)
    assert {g["weight_decay"] for g in sgd.param_groups} == {0.0005} and sgd.defaults["momentum"] == 0.9


@pytest.mark.parametrize(
    ("decoder", "family", "embeddings"),
    [
        ("segmenter-mask", None, {"backbone.pos_embed", "backbone.prefix", "decoder.class_embed"}),
        ("segmenter-linear", "registers", {"backbone.pos_embed", "backbone.prefix"}),
        ("setr-mla", "rotary-gated", {"backbone.prefix"}),
        ("eomt", None, {"backbone.pos_embed", "backbone.prefix", "decoder.query"}),
    ],
)
def test_embeddings_do_not_decay(decoder: str, family: str | None, embeddings: set[str]) -> None:
    """And of all else that has several dimensions, everything does."""
    layers = (1, 2) if decoder == "eomt" else (2, 4)
    model = randomised(small_config(decoder, family=family, layers=layers)).requires_grad_()
    optimiser = make_optimiser(model, "adamw", 0.01, 0.05, 1.0)
    plain = {id(p) for group in optimiser.param_groups if not group["weight_decay"] for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in plain and p.ndim > 1} == embeddings
    assert all(id(p) in plain for p in model.parameters() if p.ndim == 1)


def test_frozen_parts_are_left_out() -> None:
    model = randomised(small_config())
    model.heads.requires_grad_(True)
    optimiser = make_optimiser(model, "sgd", 0.01, 0.0, 1.0)
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(model.heads.parameters()))


@pytest.mark.oracle
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize(("power", "minimum"), [(0.9, 1e-4), (1.0, 0.0)])
def test_poly_is_mmengines(power: float, minimum: float) -> None:
    """The same curve; mmengine's ends at the last step, ours would at the step after it, so that no step is lost."""
    from mmengine.optim.scheduler import PolyLR

    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    real = PolyLR(optimiser, eta_min=minimum, power=power, begin=0, end=200, by_epoch=False)
    for step in range(200):
        expected = optimiser.param_groups[0]["lr"]
        found = learning_rate(step, 199, 0.01, warmup=0, power=power, min_lr=minimum)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
        optimiser.step()
        real.step()


def test_warm_up_begins_near_zero_and_ends_on_the_curve() -> None:
    def rate(step: int, warmup: int) -> float:
        return learning_rate(step, 100, 0.01, warmup=warmup, power=0.9, min_lr=0.0)

    rates = [rate(step, 10) for step in range(12)]
    assert rates[0] == pytest.approx(1e-8) and rates == sorted(rates[:10]) + rates[10:]
    assert rates[10] == rate(10, 0) and rates[5] == pytest.approx(rate(5, 0) / 2, rel=1e-5)
