"""Evaluates a torch model with any token policy, without exporting it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dovit.evaluation.cost import Cost
from dovit.evaluation.data import Dataset
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.segmenter import Setting
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.macs import evaluate as evaluate_macs
from dovit.export.macs import step_macs
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.chain import DecisionResult, decision_maps
from dovit.runtime.resize import label_dtype
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide
from dovit.runtime.whole import segment_whole
from dovit.training.policies.checkpoint import is_dynamic_vit, load_dynamic_vit
from dovit.training.policies.dynamic_vit import DynamicViT, predictor_macs
from dovit.training.policies.ranked import FixedRatio


def read_segmenter(path: Path, device: torch.device, mode: Mode | None = None) -> TorchSegmenter:
    """Any checkpoint that dovit-export reads, or a DynamicViT's. `mode`: default the checkpoint's. Raises DovitError or
    UsageError."""
    if is_dynamic_vit(path):
        return TorchSegmenter(load_dynamic_vit(path).to(device), mode)
    return TorchSegmenter(load_model(path, ReadOptions(plain=True)).model.to(device), mode)


class TorchSegmenter:
    """A model in evaluation mode. Token pass is `exact`; a DynamicViT keeps its own counts whatever ξ says."""

    def __init__(self, model: DoViT, mode: Mode | None = None) -> None:
        """`mode`: default the model's, which its bundle has as well."""
        config = model.config
        self.model, self.mode = model, mode or config.mode
        self.classes, self.decisions, self.least_kept = config.classes, len(model.heads), config.least_kept
        self.own = Setting.of(config.thresholds)
        per_patch = None
        if isinstance(model, DynamicViT):
            per_patch = predictor_macs(config.backbone.embed_dim)
            self.own = Setting(f"DyViT/{model.ratio:g}", (1.0,) * self.decisions, model.counts)
        bare = step_macs(config.without_token_pass)
        dense = evaluate_macs(bare, [config.tokens + config.backbone.prefix])
        self.cost = Cost(tuple(step_macs(config, per_patch)), config.prefix, config.tokens, dense)

    def segment(self, image: np.ndarray, setting: Setting) -> Result:
        """As Segmenter has it."""
        config = self.model.config

        def core(window: np.ndarray) -> Result:
            return self._window(window, setting)

        if self.mode == "whole":
            return segment_whole(image, config.image_size, core, keep_ratio=config.keep_ratio, fill=config.mean)
        return segment_slide(image, config.image_size, config.slide_stride or config.image_size, core)

    @torch.no_grad()
    def _window(self, window: np.ndarray, setting: Setting) -> Result:
        model, config = self.model, self.model.config
        pixels = torch.tensor(window)[None].to(model.mean.device)
        if isinstance(model, DynamicViT):
            output = model.follow(pixels, model.top_scores)
        elif setting.counts is not None:
            output = model.follow(pixels, FixedRatio(model, setting.counts))
        else:
            output = model(pixels, setting.thresholds)
        decided = [
            DecisionResult(
                d.confidence.float().cpu().numpy(),
                d.index.cpu().numpy(),
                np.searchsorted(d.index.cpu().numpy()[0], d.kept.cpu().numpy()),
            )
            for d in output.decisions[0]
        ]
        keep, confidence = decision_maps(decided, config.tokens, self.decisions)
        shape = (self.decisions, *config.grid)
        kept = tuple(d.keep.shape[1] for d in decided)
        labels = model.resize_logits(output.logits.float())[0].argmax(dim=0).cpu().numpy()
        return Result(
            labels=labels.astype(label_dtype(self.classes)),
            kept=kept + (0,) * (self.decisions - len(kept)),
            tokens=config.tokens,
            keep_maps=keep.reshape(shape),
            confidence_maps=confidence.reshape(shape),
            logits=output.logits[0].float().cpu().numpy(),
        )


def validate(model: DoViT, dataset: Dataset, limit: int | None = None) -> dict[str, float]:
    """PA, mPA and mIoU in percent, if any pixel is labelled, and the MACs ratio (paper's count) of `model` at its own setting, in
    its own mode: slide takes a pass for each window of an image, but whole would say little about the model's bundle."""
    segmenter = TorchSegmenter(model)
    (outcome,) = evaluate(segmenter, dataset, [segmenter.own], limit=limit)
    scores = outcome.confusion.summary() if outcome.confusion.counts.any() else {}
    return {**scores, "macs_ratio": outcome.macs_ratio[0]}
