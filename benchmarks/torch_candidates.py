"""The baselines in torch: the model in eager mode, and the dense model with torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dovit.benchmarks.gpu_rows import Candidate
from dovit.benchmarks.torch_plans import ELEMENTS, check_blocks
from dovit.export.macs import evaluate, step_macs
from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState
from dovit.runtime.bundle.plans import Precision


class Dense(nn.Module):
    """The model without its decisions: image [B, H, W, 3] uint8 → labels [B, H, W]."""

    def __init__(self, model: DoViT) -> None:
        super().__init__()
        check_blocks(model.config)
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        model, taps = self.model, []
        tokens = model.embed(image)
        context = model.backbone.context(torch.arange(model.config.tokens, device=tokens.device)[None])
        for number, layer in enumerate(model.backbone.layers, start=1):
            tokens = layer(tokens, *context)
            if number in model.config.taps:
                taps.append(tokens[:, model.config.backbone.prefix :])
        full = tokens[:, model.config.backbone.prefix :]
        return model.resize_logits(model.decode(full, taps)).argmax(dim=1)


class Eager:
    """The model with as many tokens kept as asked for, the least confident ones: no number is ever read back."""

    def __init__(self, model: DoViT) -> None:
        self.model = model

    def labels(self, image: Tensor, counts: Sequence[int]) -> Tensor:
        """Image [B, H, W, 3] uint8 → labels [B, H, W]."""

        def policy(number: int, seen: TokenState) -> tuple[Tensor, Tensor]:
            q = self.model.confidence(number, seen)
            return q, q.topk(counts[number], dim=1, largest=False).indices.sort(dim=1).values

        return self.model.resize_logits(self.model.follow(image, policy).logits).argmax(dim=1)


def torch_candidates(
    model: DoViT,
    precision: Precision,
    device: str,
    image: np.ndarray,
    skipped: dict[str, str],
    *,
    compiled: bool = True,
) -> Callable[[str, tuple[int, ...] | None], list[Candidate]]:
    """Candidates of a setting, dense ones where no counts are given. What torch.compile cannot do goes to `skipped`."""
    ready = copy.deepcopy(model).eval().requires_grad_(False).to(device, getattr(torch, ELEMENTS[precision]))
    eager, dense = Eager(ready), Dense(ready)
    config = model.config.without_token_pass
    dense_macs = evaluate(step_macs(config), [config.backbone.prefix + config.tokens])[1]
    desk = _PinnedMemory(image, config.classes, device)

    def found(setting: str, counts: tuple[int, ...] | None) -> list[Candidate]:
        if counts is not None:
            macs = evaluate(step_macs(model.config), _lengths(model, counts))[1]
            return [_candidate("torch, eager", setting, counts, macs, lambda image: eager.labels(image, counts))]
        field = [_candidate("torch, eager", setting, (), dense_macs, dense)]
        if compiled:
            quick: Any = torch.compile(dense)
            try:
                desk.labels(quick)
            except Exception as error:  # whatever a compiler meets: its types are of many packages
                skipped["torch.compile"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            else:
                field.append(_candidate("torch.compile", setting, (), dense_macs, quick))
        return field

    def _candidate(
        name: str, setting: str, counts: tuple[int, ...], macs: int, labels: Callable[[Tensor], Tensor]
    ) -> Candidate:
        def run() -> object:
            return desk.labels(labels)

        return Candidate(name, setting, counts, macs, run, lambda count: [run() for _ in range(count)])

    return found


class _PinnedMemory:
    """Copies images to the device and labels from it as a chain does: through pinned memory, as uint8."""

    def __init__(self, image: np.ndarray, classes: int, device: str) -> None:
        self._image = torch.from_numpy(image.copy())
        kind, self._device, pinned = torch.uint8 if classes <= 256 else torch.int16, device, device != "cpu"
        self._given = torch.empty(image.shape, dtype=torch.uint8, pin_memory=pinned)
        self._labels = torch.empty(image.shape[:3], dtype=kind, pin_memory=pinned)

    @torch.no_grad()
    def labels(self, model: Callable[[Tensor], Tensor]) -> np.ndarray:
        """One image, waited for."""
        self._given.copy_(self._image)
        found = model(self._given.to(self._device, non_blocking=True))
        self._labels.copy_(found.to(self._labels.dtype), non_blocking=True)
        if self._device != "cpu":
            torch.cuda.current_stream().synchronize()
        return self._labels.numpy().copy()


def _lengths(model: DoViT, counts: Sequence[int]) -> list[int]:
    """Tokens that each block runs on; none where the backbone ended early."""
    prefix = model.config.prefix
    return [prefix + model.config.tokens, *(prefix + count for count in counts if count)]
