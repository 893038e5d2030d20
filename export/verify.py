"""Compares a bundle with the torch model, after every export and before the bundle is put in place.

The bundle goes first; the torch model then follows the bundle's decisions, and each decision is checked against the
confidences that torch found. So one token whose confidence equals ξ but for rounding does not make two passes
incomparable, and the two never have to be in memory together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dovit.export.model import DoViT
from dovit.export.model.token_pass import TokenState, add_cells
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.errors import DovitError
from dovit.runtime.loading import load

RELATIVE_BOUND = 1e-4  # largest difference of a step's output, relative to the largest value of that output
LABEL_BOUND = 0.999  # smallest share of equal labels
CONFIDENCE_BOUND = 1e-4  # how far from ξ rounding may move a confidence


@dataclass(frozen=True)
class Pass:
    """One comparison: largest relative difference by step, share of equal labels, tokens kept."""

    name: str
    differences: dict[str, float]
    label_agreement: float
    kept: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether every figure is within its bound; a NaN is not."""
        return all(d <= RELATIVE_BOUND for d in self.differences.values()) and self.label_agreement >= LABEL_BOUND


@dataclass(frozen=True)
class _Setting:
    name: str
    thresholds: tuple[float, ...]
    capacities: tuple[int, ...] | None  # None: exact


def sample_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: smooth colours with noise on one half, so that patches are not all alike."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in random.uniform(-3, 3, (3, 3))]
    image = 127.5 + 90 * np.stack(waves, axis=-1)
    image[:, width // 2 :] += random.normal(0, 30, (height, width - width // 2, 3))
    return image.clip(0, 255).astype(np.uint8)


def verify(folder: Path, model: Callable[[], DoViT], progress: Callable[[str], None]) -> list[Pass]:
    """Compare the bundle in `folder` with the torch model that `model` loads, at ξ = 1, at the bundle's ξ and at a ξ
    that stops half of the tokens, in both schedules. Leaves some scratch files in `folder`, which is the export's stage.
    Raises DovitError where a figure is out of bounds."""
    settings, results = _run_bundle(folder, progress)
    image = torch.from_numpy(sample_image(*results[0][0].image_size)[None])
    passes = []
    reference = model()
    for setting in settings:
        progress(f"running the torch model: {setting.name}")
        manifest, result = results.pop(0)  # this also frees its logits, which are mapped from a file
        passes.append(_compare(setting, manifest, result, reference, image))
    failed = next((p for p in passes if not p.ok), None)
    if failed:
        worst = max(failed.differences, key=lambda step: np.nan_to_num(failed.differences[step], nan=np.inf))
        raise DovitError(
            f"verification failed at {failed.name}: step {worst} differs from the torch model by "
            f"{failed.differences[worst]:.1e} (bound {RELATIVE_BOUND:.0e}), {failed.label_agreement:.2%} of the labels agree; "
            f"no bundle was written"
        )
    return passes


def _run_bundle(
    folder: Path, progress: Callable[[str], None]
) -> tuple[list[_Setting], list[tuple[Manifest, ChainResult]]]:
    chain = load(folder, "onnxruntime", provider="cpu", low_memory=True).chain
    assert isinstance(chain, Chain)
    manifest = chain.manifest
    image = sample_image(*manifest.image_size)[None]

    number = itertools.count()

    def run(setting: _Setting) -> ChainResult:
        progress(f"running the bundle: {setting.name}")
        capacities: Sequence[int] = setting.capacities or range(manifest.tokens + 1)
        result = chain.run(image, setting.thresholds, capacities, keep_tensors=True)
        return _logits_on_disk(result, folder / f"pass{next(number)}.npy")

    count = len(manifest.decisions)
    ones = _Setting("ξ = 1, exact", (1.0,) * count, None)
    results = [run(ones)]
    settings = [ones]
    if count:
        half = tuple(_middle(d.confidence[0]) for d in results[0].decisions)
        half += (1.0,) * (count - len(half))  # a wrong bundle may end early even at ξ = 1
        own = manifest.thresholds
        settings += [
            _Setting("ξ = 1, bucketed", (1.0,) * count, manifest.capacities),
            _Setting("the bundle's ξ, exact", own, None),
            _Setting("the bundle's ξ, bucketed", own, manifest.capacities),
            _Setting("half stopped, exact", half, None),
            _Setting("half stopped, bucketed", half, manifest.capacities),
        ]
        results += [run(setting) for setting in settings[1:]]
    return settings, [(manifest, result) for result in results]


def _logits_on_disk(result: ChainResult, file: Path) -> ChainResult:
    """The same with its largest tensor in a file: six passes of a decoder with large maps are a gigabyte."""
    np.save(file, result.logits)
    return replace(result, logits=np.load(file, mmap_mode="r"))


def _middle(confidence: np.ndarray) -> float:
    return float(min(max(np.nanmedian(confidence), 0.0), 1.0))


def _compare(setting: _Setting, manifest: Manifest, result: ChainResult, model: DoViT, image: Tensor) -> Pass:
    names = [step.name for step in manifest.steps]
    blocks: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[object, object, Tensor], None]:
        return lambda _module, _inputs, output: blocks.__setitem__(name, output)

    # a correction, an identity where there is none, makes the tokens that leave its block
    ends = [model.backbone.layers[model.config.blocks[0][-1]], *model.corrections]
    hooks = [end.register_forward_hook(remember(name)) for name, end in zip(names[:-1], ends, strict=True)]
    keeps = [torch.from_numpy(d.keep.astype(np.int64)) for d in result.decisions]
    try:
        with torch.inference_mode():
            output = model(image, keeps=keeps)
            labels = model.resize_logits(output.logits).argmax(dim=1).numpy()
    finally:
        for hook in hooks:
            hook.remove()

    prefix, cells = model.config.backbone.prefix, model.config.cells
    if cells is not None:  # which the bundle's stem adds behind its last layer
        blocks[names[0]] = add_cells(TokenState.start(blocks[names[0]], prefix), prefix, cells).tokens
    if names[-2] in blocks:  # where EoMT's queries come first; the bundle's block is without them
        blocks[names[-2]] = blocks[names[-2]][:, model.config.queries :]
    differences = {
        name: _relative(result.tensors[f"tokens{k}"], blocks[name].numpy())
        for k, name in enumerate(names[:-1], start=1)
        if name in blocks
    }
    differences[names[-1]] = _relative(result.logits, output.logits.numpy())
    for number, (decision, keep) in enumerate(zip(output.decisions[0], keeps, strict=True)):
        _check_decision(setting, number, decision.confidence, keep)
    return Pass(setting.name, differences, float((labels == result.labels).mean()), tuple(k.shape[1] for k in keeps))


def _relative(made: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest value; channel by channel, for full-size logits are large. A NaN stays one."""
    scale = float(max(reference.max(initial=0), -reference.min(initial=0))) or 1.0
    return float(np.max([np.abs(a - b).max(initial=0) for a, b in zip(made[0], reference[0], strict=True)])) / scale


def _check_decision(setting: _Setting, number: int, confidence: Tensor, keep: Tensor) -> None:
    """The kept set `keep` [1, K] must be what ξ and the schedule ask for, given confidences [1, M] up to rounding."""
    xi, q = setting.thresholds[number], confidence[0]
    stays = torch.zeros_like(q, dtype=torch.bool).scatter(0, keep[0], True)
    must_stay = ~(q > xi - CONFIDENCE_BOUND)
    may_stay = ~(q > xi + CONFIDENCE_BOUND) | torch.tensor(xi >= 1)
    wrong = bool((must_stay & ~stays).any())
    if setting.capacities is None:
        wrong |= bool((stays & ~may_stay).any())
    else:
        fits = {
            min(c for c in setting.capacities if c >= int(n))
            for n in range(int(must_stay.sum()), int(may_stay.sum()) + 1)
        }
        wrong |= keep.shape[1] not in fits
        filled, stopped = q[stays & ~may_stay], q[~stays]
        wrong |= bool(len(filled) and len(stopped) and filled.max() > stopped.min() + CONFIDENCE_BOUND)
    if wrong:
        raise DovitError(
            f"verification failed at {setting.name}: decision {number + 1} keeps other tokens than the torch model would; "
            f"no bundle was written"
        )
