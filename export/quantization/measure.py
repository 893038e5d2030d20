"""A quantized chain against the float32 one: labels, the decision at which each token stops, mIoU, and each step by itself."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dovit.engines.accuracy import Scene
from dovit.engines.lowering.files import read_step, write_part
from dovit.evaluation.metrics import Confusion
from dovit.export.quantization.nodes import apply
from dovit.export.quantization.products import QuantizedProduct
from dovit.runtime.bundle.manifest import Manifest, Step
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain, ChainResult, decision_maps
from dovit.runtime.engine import OnnxRuntimeEngine

MIN_LABELS_EQUAL = 0.99
MAX_MIOU_LOSS = 0.3  # percentage points


@dataclass(frozen=True)
class Figures:
    """What a quantized chain costs. Shares, not percent; `errors` by step, `miou` (float32's, this one's) in percent."""

    errors: dict[str, float]
    label_agreement: float
    same_fate: float
    miou: tuple[float, float] | None

    @property
    def ok(self) -> bool:
        """Whether it is within the bounds; a NaN is not."""
        if not self.label_agreement >= MIN_LABELS_EQUAL:
            return False
        return self.miou is None or self.miou[0] - self.miou[1] <= MAX_MIOU_LOSS


class Reference:
    """Results of the float32 bundle on the scenes: of the first all of it, of the others what is compared, as the logits of
    hundreds of images may be larger than memory."""

    def __init__(self, bundle: Bundle, scenes: Sequence[Scene], progress: Callable[[str], None]) -> None:
        """`scenes`: images of the bundle's size."""
        self.bundle, self.scenes = bundle, scenes
        manifest = bundle.manifest
        chain = Chain(
            manifest, [OnnxRuntimeEngine(step.name, bundle.onnx(step), prepack=False) for step in manifest.steps]
        )
        self.labels: list[np.ndarray] = []  # [H, W] each
        self.fates: list[np.ndarray] = []  # [N] each
        for number, scene in enumerate(scenes, start=1):
            progress(f"float32, image {number} of {len(scenes)}")
            result = _run(chain, scene, keep_tensors=number == 1)
            if number == 1:
                self._first = result
            self.labels.append(result.labels[0])
            self.fates.append(_fates(manifest, result))

    def compare(self, quantized: Mapping[str, QuantizedProduct], scratch: Path) -> Figures:
        """The figures of the bundle with these products quantized."""
        manifest = self.bundle.manifest
        engines = [quantized_engine(self.bundle, step, quantized, scratch) for step in manifest.steps]
        chain = Chain(manifest, engines)
        scores = Confusion(manifest.classes), Confusion(manifest.classes)
        equal, fates = [], []
        for scene, labels, fate in zip(self.scenes, self.labels, self.fates, strict=True):
            made = _run(chain, scene)
            equal.append(float((made.labels[0] == labels).mean()))
            fates.append(float((_fates(manifest, made) == fate).mean()))
            if scene.labels is not None:
                for score, found in zip(scores, (labels, made.labels[0]), strict=True):
                    score.add(found, scene.labels)
        labelled = all(scene.labels is not None for scene in self.scenes)
        return Figures(
            {
                step.name: error
                for step, engine in zip(manifest.steps, engines, strict=True)
                if (error := self.step_error(step, engine)) is not None
            },
            float(np.mean(equal)),
            float(np.mean(fates)),
            (scores[0].summary()["mIoU"], scores[1].summary()["mIoU"]) if labelled else None,
        )

    def step_error(self, step: Step, engine: OnnxRuntimeEngine) -> float | None:
        """RMS difference of a step's tokens or logits over their RMS value, on the inputs that float32 made of the first image;
        None where it did not reach the step."""
        scene, result = self.scenes[0], self._first
        manifest = self.bundle.manifest
        known = {**result.tensors, "image": scene.image[None], "logits": result.logits}
        known |= {"stopped_count0": np.zeros(1, np.int64)}
        known |= {
            d.threshold: np.asarray(xi, np.float32)
            for d, xi in zip(manifest.decisions, manifest.thresholds, strict=True)
        }
        known |= {"capacities": np.arange(manifest.tokens + 1)}
        if any(spec.name not in known or not np.size(known[spec.name]) for spec in step.inputs):
            return None
        wanted = [s.name for s in step.outputs if s.name == "logits" or s.name.startswith("tokens")]
        made = engine.run(
            {s.name: np.asarray(known[s.name], s.dtype) for s in step.inputs},
            dict.fromkeys(s.name for s in step.outputs),
        )
        return max((_rms(made[name] - known[name]) / (_rms(known[name]) or 1.0) for name in wanted), default=0.0)


def quantized_engine(
    bundle: Bundle, step: Step, quantized: Mapping[str, QuantizedProduct], scratch: Path
) -> OnnxRuntimeEngine:
    """A step of the float32 `bundle` with these products quantized."""
    graph = read_step(bundle.onnx(step))
    apply(graph, quantized)
    file = scratch / f"{step.name}-quantized.onnx"
    write_part(graph, file)
    del graph
    gc.collect(1)  # a graph's nodes and tensors refer to each other, and to the weights
    int8 = all(product.weight.dtype == np.int8 for product in quantized.values())
    return OnnxRuntimeEngine(step.name, file, prepack=False, fuse_quantized=int8)


def _run(chain: Chain, scene: Scene, *, keep_tensors: bool = False) -> ChainResult:
    manifest = chain.manifest
    every = range(manifest.tokens + 1)
    return chain.run(scene.image[None], manifest.thresholds, every, keep_tensors=keep_tensors)


def _fates(manifest: Manifest, result: ChainResult) -> np.ndarray:
    """[N]: after how many decisions each token was still kept."""
    maps = decision_maps(result.decisions, manifest.tokens, len(manifest.decisions))[0]
    return np.asarray(maps.sum(axis=0))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
