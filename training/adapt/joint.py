"""All decisions together: lenses, corrections, the refinement and heads trained through the frozen layers, and judged on
held-out images.

Each decision is fitted by itself first (`fit.py`), to the layer's own tokens. What counts is the output of the whole, in which
an error of one correction passes through all later layers, so the second part follows the gradient of
KL(p_t ‖ p_s) there: p_t of the model without token pass, p_s of the same with it, at the model's own ξ. Decisions have no
gradient; heads learn as before, from the probabilities that the whole model gives the tokens that are left, or their labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dovit.export.model import DoViT
from dovit.export.model.dovit import Output
from dovit.export.model.token_pass import TokenState, confidence, decide, keep_least_confident
from dovit.runtime.machine import cpu_multiplies_in_bf16
from dovit.training.adapt.features import Features
from dovit.training.adapt.fit import check_finite, probabilities
from dovit.training.adapt.images import Images, window
from dovit.training.adapt.probabilities import cross_entropy, divergence
from dovit.training.torch_segmenter import TorchSegmenter

IMAGES_A_STEP = 4
HEAD_LR = 3.0  # times that of the maps


@dataclass(frozen=True)
class DecisionQuality:
    """Of the tokens that are left at a decision of the held-out images: `confident`, the share with q > ξ; `agreement`, the share
    of those whose class is the model's own, or the most frequent label of their patch where the images have labels (tokens
    without one left out), NaN where there are none."""

    layer: int
    confident: float
    agreement: float


@dataclass(frozen=True)
class Quality:
    """Held-out images: `divergence`, KL(p_t ‖ p_s) in nats a position of the decoder's logits; `macs`, those with token pass over
    those without, in the paper's count."""

    divergence: float
    macs: float
    decisions: tuple[DecisionQuality, ...]


class _Decisions:
    """The policy: ξ of the model. It collects what the heads said of the tokens that were left."""

    def __init__(self, model: DoViT) -> None:
        self.model = model
        self.said: list[tuple[Tensor, Tensor]] = []  # logits [1, C, M] and positions [M] of each decision

    def __call__(self, number: int, seen: TokenState) -> tuple[Tensor, Tensor]:
        patches = seen.tokens[:, self.model.config.prefix :].detach()  # [1, M, E]
        logits = self.model.heads[number](patches.transpose(1, 2)[..., None])[..., 0].float()
        self.said.append((logits, seen.index[0].long()))
        q = keep_least_confident(confidence(logits.detach()), self.model.config.least_kept)
        return q, decide(q, self.model.config.thresholds[number])


def distil_together(
    model: DoViT,
    images: Images,
    features: Features,
    numbers: Sequence[int],
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    progress: Callable[[int], None],
) -> None:
    """Train lenses, corrections, refinement and heads of `model` by Adam, IMAGES_A_STEP of the `images` that `numbers` names a
    step.

    The layers run in bfloat16 on a CPU that multiplies in it."""
    heads = list(model.heads.parameters())
    maps = [p for part in model.of_token_pass if part is not model.heads for p in part.parameters()]
    groups = [{"params": maps, "lr": lr}, {"params": heads, "lr": HEAD_LR * lr}]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for parameter in (*maps, *heads):
        parameter.requires_grad_(True)
    order: list[int] = []
    for step in range(steps):
        optimiser.zero_grad()
        for _ in range(IMAGES_A_STEP):
            if not order:
                order = torch.randperm(len(numbers), generator=generator).tolist()
            image = numbers[order.pop()]
            wanted = probabilities(model, features, [image], resize_masks=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_in_bf16()):
                said, output = _pass(model, images, image)
            loss = divergence(model, output.logits.float(), wanted)
            targets = features.targets(image)  # [N, C]
            for logits, left in said:
                loss = loss + cross_entropy(logits[0].T, targets[left])
            check_finite(loss, lr)
            (loss / IMAGES_A_STEP).backward()
        optimiser.step()
        schedule.step()
        progress(step + 1)
    model.requires_grad_(False)


@torch.no_grad()
def judge(model: DoViT, images: Images, features: Features, numbers: Sequence[int]) -> Quality:
    """How `model` does with token pass on the `images` that `numbers` names, beside itself without."""
    config = model.config
    cost = TorchSegmenter(model).cost
    total, macs = 0.0, 0.0
    left, sure, known, agreed = (torch.zeros(len(config.decisions)) for _ in range(4))
    for image in numbers:
        wanted = probabilities(model, features, [image], resize_masks=True)
        said, output = _pass(model, images, image)
        total += float(divergence(model, output.logits, wanted))
        targets = features.targets(image)  # [N, C]
        for number, ((logits, index), xi) in enumerate(zip(said, config.thresholds, strict=False)):
            q, label = logits[0].softmax(dim=0).max(dim=0)
            share, expected = targets[index].max(dim=1)
            left[number] += len(q)
            sure[number] += int((q > xi).sum())
            judged = (q > xi) & (share > 0)  # the others have no label
            known[number] += int(judged.sum())
            agreed[number] += int((label == expected)[judged].sum())
        kept = [decision.kept.shape[1] for decision in output.decisions[0]]
        kept += [0] * (len(config.decisions) - len(kept))  # the backbone ended early
        macs += cost.of(tuple(kept))[0] / cost.dense[0]
    decisions = zip(config.decisions, (sure / left.clamp(min=1)).tolist(), (agreed / known).tolist(), strict=True)
    return Quality(
        divergence=max(0.0, total / len(numbers)),  # rounding
        macs=macs / len(numbers),
        decisions=tuple(DecisionQuality(head.layer, share, agreement) for head, share, agreement in decisions),
    )


def _pass(model: DoViT, images: Images, number: int) -> tuple[list[tuple[Tensor, Tensor]], Output]:
    """One image through the model: what the heads said, and what came out."""
    policy = _Decisions(model)
    output = model.follow(torch.tensor(window(images[number], model.config).image)[None], policy)
    return policy.said, output
