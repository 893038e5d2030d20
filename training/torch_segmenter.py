"""A torch model as something that evaluation can run: any token policy, no export needed."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from dovit.export.model import DoViT
from dovit.runtime.resize import labels_from_logits, resize_image
from dovit.training.data import Dataset
from dovit.training.policies.dynamic_vit import DynamicViT


def validate(model: DoViT, dataset: Dataset, limit: int | None = None) -> dict[str, float]:
    """mIoU, aAcc and mAcc in percent, of `model` in evaluation mode at its own ξ, whole images, one at a time."""
    from dovit.training.evaluation.metrics import Confusion

    device = next(model.parameters()).device
    confusion = Confusion(model.config.classes)
    for sample in islice((dataset[k] for k in range(len(dataset))), limit):
        image = torch.from_numpy(resize_image(sample.image, model.config.image_size)[None]).to(device)
        policy = model.top_scores if isinstance(model, DynamicViT) else None
        output = model(image) if policy is None else model.follow(image, policy)
        labels = labels_from_logits(output.logits[0].float().cpu().numpy(), sample.labels.shape)
        confusion.add(labels, sample.labels)
    return confusion.summary()
