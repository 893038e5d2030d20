"""The loss of a batch as one module, which data parallelism wraps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dovit.export.model import DoViT
from dovit.export.model.config import EomtDecoder
from dovit.training.losses import cross_entropy, self_distillation, strided
from dovit.training.policies.dynamic_vit import RATIO_WEIGHT, DynamicViT
from dovit.training.policies.ranked import AverageByConfidence


class Objective(nn.Module):
    """L = L_CE + α Σ_ℓ L_AH + β L_SD (12), with token pass active at `thresholds`.

    `teacher`: the same segmenter, run without token pass; None leaves L_SD out. `label_stride`: labels at every so many
    pixels only, which makes the losses of a small model affordable; 1 is the paper's.
    For a DynamicViT: L_CE + 2 L_ratio + β L_SD. For an EoMT: Σ_ℓ L_AH alone, since its logits are sums of probabilities,
    which L_CE does not take.
    """

    def __init__(
        self,
        model: DoViT,
        thresholds: Sequence[float],
        teacher: DoViT | None,
        alpha: float,
        beta: float,
        label_stride: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.thresholds = tuple(thresholds)
        self.alpha, self.beta, self.label_stride = alpha, beta, label_stride
        # in a list, so that the teacher's weights are neither trained, nor saved, nor sent to other processes
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Images [B, H, W, 3] uint8, labels [B, H, W] int64 → `loss` and its parts, and `kept` [D] float32, tokens."""
        labels = strided(labels, self.label_stride)
        parts: dict[str, Tensor] = {}
        if isinstance(self.model, DynamicViT):
            logits, ratio = self.model.sampled(images)
            parts["ratio"] = ratio
            extra, kept = RATIO_WEIGHT * ratio, self.model.counts
        else:
            policy = AverageByConfidence(self.model, self.thresholds)
            output = self.model.follow(images, policy)
            logits = output.logits
            heads = [cross_entropy(one, labels) for one in policy.logits]
            parts |= {f"head{number}": value for number, value in enumerate(heads, start=1)}
            extra = self.alpha * torch.stack(heads).sum() if heads else logits.new_zeros(())
            counts = [decision.kept.shape[1] for decision in output.decisions[0]]
            kept = (*counts, *[0] * (len(self.thresholds) - len(counts)))  # where the backbone ended early
        if isinstance(self.model.config.decoder, EomtDecoder):
            total = extra
        else:
            parts["segmentation"] = cross_entropy(logits, labels)
            total = parts["segmentation"] + extra
        if self._teacher:
            parts["distillation"] = self_distillation(logits, self._dense(images), (labels.shape[1], labels.shape[2]))
            total = total + self.beta * parts["distillation"]
        report = {name: value.detach() for name, value in parts.items()}
        return {"loss": total, **report, "kept": torch.tensor(kept, dtype=torch.float32, device=total.device)}

    @torch.no_grad()
    def _dense(self, images: Tensor) -> Tensor:
        """The teacher's logits, all of its tokens kept."""
        (teacher,) = self._teacher
        every = [torch.arange(teacher.config.tokens, device=images.device).expand(len(images), -1)] * len(teacher.heads)
        return teacher(images, keeps=every).logits

    def teacher_to(self, device: torch.device) -> None:
        """Move the teacher to `device`: it is not a submodule."""
        for teacher in self._teacher:
            teacher.to(device)
