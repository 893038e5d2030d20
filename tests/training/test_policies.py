"""Token policies: equal counts in a batch, a fixed ratio, and DynamicViT against its own definition and the paper."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import DECODERS, random_images, randomised, small_config, spreading_thresholds
from torch import Tensor

from dovit.export.checkpoints import load_model
from dovit.export.checkpoints.own import write_safetensors
from dovit.export.macs import evaluate, step_macs
from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import SetrUpDecoder
from dovit.export.model.token_pass import TokenState
from dovit.runtime.errors import DovitError
from dovit.training.policies.checkpoint import is_dynamic_vit, load_dynamic_vit, save_dynamic_vit
from dovit.training.policies.dynamic_vit import DynamicViT, predictor_macs
from dovit.training.policies.ranked import AverageByConfidence, FixedRatio, average_kept, least_confident


def test_counts_are_averaged_and_filled_by_confidence() -> None:
    q = torch.tensor([[0.9, 0.1, 0.99, 0.2, 0.995], [0.99, 0.999, 0.98, 0.97, 0.96]])
    assert average_kept(q, 0.95) == round((3 + 0) / 2)  # 2, to even
    assert average_kept(q, 0.985) == round((3 + 3) / 2)
    keep = least_confident(q, 3)
    assert keep.tolist() == [[0, 1, 3], [2, 3, 4]]
    assert least_confident(torch.tensor([[0.5, float("nan"), 0.1]]), 1).tolist() == [[1]]  # a NaN keeps
    assert least_confident(torch.tensor([[0.5, 0.5, 0.5]]), 2).tolist() == [[0, 1]]  # ties: lower index


def test_training_pass_is_the_reference_where_counts_agree() -> None:
    """One image: the average is its own count, so training sees exactly what `exact` computes."""
    model = randomised(small_config(prefix=1))
    image = random_images(model.config)
    thresholds = spreading_thresholds(model, image)
    policy = AverageByConfidence(model, thresholds)
    with torch.no_grad():
        seen, reference = model.follow(image, policy), model(image, thresholds)
    torch.testing.assert_close(seen.logits, reference.logits)
    for a, b in zip(seen.decisions[0], reference.decisions[0], strict=True):
        assert torch.equal(a.kept, b.kept)
    assert 0 < seen.decisions[0][0].kept.shape[1] < model.config.tokens
    assert [tuple(logits.shape) for logits in policy.logits] == [(1, 7, 4, 6)] * 2


def test_all_images_of_a_batch_keep_the_average() -> None:
    model = randomised(small_config())
    images = random_images(model.config, batch=4)
    thresholds = spreading_thresholds(model, images)
    with torch.no_grad():
        each = [len(model(one[None], thresholds).decisions[0][0].kept[0]) for one in images]
        together = model.follow(images, AverageByConfidence(model, thresholds)).decisions[0][0]
    assert len(set(each)) > 1
    assert together.kept.shape[1] == round(np.mean(each))
    for b in range(4):  # the confidence of tokens that stay is lower than of those that stop
        stays = torch.isin(together.index[b], together.kept[b])
        assert together.confidence[b][stays].max() <= together.confidence[b][~stays].min()


def test_gradients_reach_everything_through_token_pass() -> None:
    model = randomised(small_config()).requires_grad_()
    images = random_images(model.config, batch=2)
    output = model.follow(images, policy := AverageByConfidence(model, spreading_thresholds(model.eval(), images)))
    assert 0 < output.decisions[0][1].kept.shape[1] < output.decisions[0][0].kept.shape[1] < model.config.tokens
    (output.logits.square().mean() + sum(logits.square().mean() for logits in policy.logits)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fixed_ratio_is_fixed() -> None:
    model = randomised(small_config())
    with torch.no_grad():
        decisions = model.follow(random_images(model.config, batch=3), FixedRatio(model, (10, 5))).decisions[0]
    assert [d.kept.shape[1] for d in decisions] == [10, 5]
    assert torch.equal(decisions[0].kept, least_confident(decisions[0].confidence, 10).int())


# --- DynamicViT ---


def dynamic(decoder: str = "setr-naive", **changes: object) -> DynamicViT:
    config = small_config(decoder, merge=False, **changes)
    model = DynamicViT(config, 0.7)
    source = randomised(config)
    model.load_state_dict({k: v for k, v in source.state_dict().items() if not k.startswith("heads.")}, strict=False)
    return model.eval()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_hiding_a_token_is_leaving_it_out(decoder: str, prefix: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training masks what inference removes: with the same tokens dropped, both give the same logits."""
    model = dynamic(decoder, prefix=prefix)
    images = random_images(model.config, batch=2)
    with torch.no_grad():
        gathered = model.follow(images, model.top_scores)
    masks = []
    for decision in gathered.decisions[0]:
        mask = torch.zeros(2, model.config.tokens, 2)
        for b in range(2):
            mask[b, decision.kept[b].long(), 0] = 1
        masks.append(mask)
    waiting = iter(masks)
    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", lambda *a, **k: next(waiting))
    with torch.no_grad():
        hidden, loss = model.sampled(images)
    torch.testing.assert_close(hidden, gathered.logits, rtol=1e-4, atol=1e-4)
    shares = [0.7 ** (s + 1) - count / model.config.tokens for s, count in enumerate(model.counts)]
    assert loss.item() == pytest.approx(np.mean(np.square(shares)), abs=1e-7)


def test_scores_learn_from_the_segmentation() -> None:
    """The straight-through sample passes a gradient to the prediction modules from the logits alone."""
    model = dynamic().train()
    torch.manual_seed(0)
    logits, _ = model.sampled(random_images(model.config, batch=2))
    logits.square().mean().backward()
    for predictor in model.heads:
        assert all(p.grad is not None and p.grad.any() for p in predictor.parameters())


def test_predictor_means_over_the_kept() -> None:
    predictor = dynamic().heads[0]
    x = torch.randn(1, 6, 64)
    kept = torch.tensor([1.0, 0, 1, 1, 0, 1])[None, :, None]
    with torch.no_grad():
        some = predictor(x, kept)[:, kept[0, :, 0] > 0]
        alone = predictor(x[:, kept[0, :, 0] > 0])
    torch.testing.assert_close(some, alone)


@pytest.mark.parametrize(
    ("size", "ratio", "gflops", "parameters"),
    [("base", 0.9, 626.79, 91.12), ("base", 0.85, 581.84, 91.12), ("small", 0.9, 158.87, 23.62)],
)
def test_cost_is_the_papers(size: str, ratio: float, gflops: float, parameters: float) -> None:
    """Table 1's rows "DyViT-B/0.9, /0.85" and "DyViT-S/0.9". Its parameters have the three auxiliary heads of training
    as well, its FLOPs do not."""

    def config(image: tuple[int, int]) -> ModelConfig:
        return ModelConfig(
            image_size=image,
            classes=19,
            backbone=BackboneConfig.of_size(size),
            merge=False,
            decoder=SetrUpDecoder(kind="setr-naive"),
            thresholds=(1, 1, 1),
            decisions=tuple(HeadConfig(layer=layer, norm=True, num_convs=1) for layer in (3, 6, 9)),
        )

    with torch.device("meta"):
        model = DynamicViT(config((1024, 2048)), ratio)
        trained = DynamicViT(config((768, 768)), ratio)  # as tests/model/test_macs.py has it
        heads = DoViT(config((768, 768))).heads
    steps = step_macs(model.config, per_patch=predictor_macs(model.config.backbone.embed_dim))
    paper, _ = evaluate(steps, [1 + n for n in (model.config.tokens, *model.counts)])
    assert paper / 1e9 == pytest.approx(gflops, rel=1.5e-3)
    found = sum(p.numel() for part in (trained, heads) for p in part.parameters()) / 1e6
    assert found == pytest.approx(parameters, abs=0.015)


def test_predictor_macs_are_its_own() -> None:
    predictor = dynamic().heads[0]
    weights = [m.weight.numel() for m in predictor.modules() if isinstance(m, torch.nn.Linear)]
    assert predictor_macs(64) == sum(weights)


def test_dynamic_vit_file(tmp_path: Path) -> None:
    model = dynamic()
    path = tmp_path / "model.safetensors"
    save_dynamic_vit(model, path)
    again = load_dynamic_vit(path)
    images = random_images(model.config)
    assert is_dynamic_vit(path) and again.ratio == 0.7

    def logits(one: DynamicViT) -> Tensor:
        with torch.no_grad():
            return one.follow(images, one.top_scores).logits

    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("ratio", ["0.7", True, 0, None])
def test_a_ratio_of_another_type_is_refused(ratio: object, tmp_path: Path) -> None:
    model = dynamic()
    about = {"ratio": ratio, "config": model.config.model_dump(mode="json")}
    write_safetensors(model.state_dict(), {"dynamicvit": json.dumps(about)}, tmp_path / "model.safetensors")
    with pytest.raises(DovitError, match="damaged"):
        load_dynamic_vit(tmp_path / "model.safetensors")


def test_a_bundle_of_a_dynamic_vit_is_refused_by_its_name(tmp_path: Path) -> None:
    """dovit-export, dovit-adapt and dovit-train --ckpt read checkpoints alike."""
    save_dynamic_vit(dynamic(), tmp_path / "model.safetensors")
    with pytest.raises(DovitError, match=r"a DynamicViT .* dovit-eval --ckpt evaluates it; .* by confidence only"):
        load_model(tmp_path / "model.safetensors")


def test_state_without_merging_leaves_the_class_token_alone() -> None:
    from dovit.export.model.token_pass import gather

    tokens = torch.randn(1, 5, 8)
    state = TokenState.start(tokens, prefix=1)
    keep = torch.tensor([[0, 2]])
    assert torch.equal(gather(state, keep, 1, merge=False).tokens[:, 0], tokens[:, 0])
    assert not torch.equal(gather(state, keep, 1).tokens[:, 0], tokens[:, 0])
