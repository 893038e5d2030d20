"""The accuracy of a precision, measured without a GPU: the lowered graphs against the float32 ones, on scenes.

Two comparisons a scene: each plan run on the float32 chain's inputs, which isolates its own error; and a whole pass from image to
labels, in which errors add up and tokens near ξ may be decided differently. Both are repeated with every token kept: ξ can be
set at run time, and at the bundle's own ξ some plans may see few tokens, or none.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dovit.engines.lowering.digest import lowering_digest
from dovit.engines.lowering.emulate import emulate
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.lowering.precision import LOW_TYPES
from dovit.evaluation.metrics import Confusion
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import Accuracy, PlanStep, Precision
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.chain import Chain, ChainResult, decision_maps
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError
from dovit.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Scene:
    """An image [H, W, 3] uint8 of the bundle's size, and its labels [H, W] where the bundle's classes are theirs."""

    image: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Bounds:
    """How far a precision may be from float32. Stated in docs/engines.md with what was measured."""

    difference: float  # of a plan's output, relative to its largest value
    label_agreement: float


BOUNDS: dict[Precision, Bounds] = {"fp16": Bounds(0.03, 0.97), "bf16": Bounds(0.25, 0.85)}
# of a quantized bundle: a value next to the middle of two steps is rounded to the other one
QUANTIZED_DIFFERENCE = 0.25


def measure_accuracy(
    bundle: Bundle,
    precision: Precision,
    scenes: Sequence[Scene],
    progress: Progress = no_progress,
    *,
    float32_nodes: Collection[str] = (),
) -> Accuracy:
    """Compare `precision` with float32 on `scenes`, in the exact schedule with the bundle's ξ and with every token kept.
    `float32_nodes`: names of nodes that stay float32.
    `differences` are the largest of both; `label_agreement` is that of the worse. Needs no GPU."""
    manifest = bundle.manifest
    scores = Confusion(manifest.classes), Confusion(manifest.classes)
    differences: dict[str, float] = {}
    ways = (False, True) if manifest.decisions else (False,)  # whether every token is kept
    equal: dict[bool, list[float]] = {way: [] for way in ways}
    agreed = []
    passes = [(scene, way) for scene in scenes for way in ways]
    with TemporaryDirectory(prefix=".accuracy-", dir=bundle.root) as scratch:
        chain = _chain(bundle, "fp32", Path(scratch))
        references = []
        for number, (scene, way) in enumerate(passes, start=1):
            progress(f"float32, pass {number} of {len(passes)}")
            reference = run_scene(chain, scene, keep_all=way, keep_tensors=True)
            references.append(_on_disk(reference, Path(scratch) / f"float32-{number}"))
        del chain  # so that the two precisions' weights are never in memory together: _chain collects them
        chain = _chain(bundle, precision, Path(scratch), float32_nodes)
        for number, ((scene, way), reference) in enumerate(zip(passes, references, strict=True), start=1):
            progress(f"{precision}, pass {number} of {len(passes)}")
            for name, difference in _plan_differences(chain, scene, reference).items():
                differences[name] = max(differences.get(name, 0.0), difference)
            made = run_scene(chain, scene, keep_all=way)
            equal[way].append(float((made.labels == reference.labels).mean()))
            if way:
                continue
            agreed.append((_keep_maps(manifest, made) == _keep_maps(manifest, reference)).mean(axis=1))
            if scene.labels is not None:
                for score, result in zip(scores, (reference, made), strict=True):
                    score.add(result.labels[0], scene.labels)
    scored = all(scene.labels is not None for scene in scenes)
    return Accuracy(
        scenes=len(scenes),
        lowering=measuring_digest(),
        differences=differences,
        label_agreement=min(float(np.mean(shares)) for shares in equal.values()),
        kept_agreement=tuple(float(share) for share in np.mean(agreed, axis=0)),
        miou=(scores[0].summary()["mIoU"], scores[1].summary()["mIoU"]) if scored else None,
    )


@cache
def measuring_digest() -> str:
    """SHA-256 of the code that lowers and compares: figures of another are measured again."""
    own = resources.files("dovit.engines").joinpath("accuracy.py").read_bytes()
    return hashlib.sha256(lowering_digest().encode() + own).hexdigest()


def check_accuracy(accuracy: Accuracy, precision: Precision, *, quantized: bool = False) -> None:
    """Raises DovitError, with what to do, where a figure is out of its bound. `quantized`: of a bundle in int8 or fp8, whose
    products' inputs are rounded to coarser steps in both precisions."""
    bounds = BOUNDS[precision]
    if quantized:
        bounds = replace(bounds, difference=max(bounds.difference, QUANTIZED_DIFFERENCE))
    other = "fp32" if precision == "bf16" else "bf16 or fp32"
    worst = max(accuracy.differences, key=lambda name: accuracy.differences[name])
    difference = accuracy.differences[worst]
    if np.isinf(difference):
        raise DovitError(
            f"{precision} cannot hold the values of this model: {worst} overflows; use --precision {other} "
            f"(no plan was added)"
        )
    if difference > bounds.difference:
        raise DovitError(
            f"{precision} is too far from float32 for this model: {worst} differs by {difference:.1e} of its largest value "
            f"(bound {bounds.difference:.0e}); use --precision {other}, or --no-verify to have it all the same"
        )
    if accuracy.label_agreement < bounds.label_agreement:
        raise DovitError(
            f"{precision} is too far from float32 for this model: {accuracy.label_agreement:.2%} of the labels agree "
            f"(bound {bounds.label_agreement:.0%}); use --precision {other}, or --no-verify to have it all the same"
        )


def _chain(bundle: Bundle, precision: Precision, scratch: Path, float32_nodes: Collection[str] = ()) -> Chain:
    """The lowered steps under ONNX Runtime, a low precision by its rounding."""
    low = LOW_TYPES.get(precision)
    described, engines = [], []
    with _older_objects_frozen():
        steps = lower_bundle(bundle, precision, float32_nodes=float32_nodes)
        while steps:
            step = steps.pop(0)
            if low is not None:
                emulate(step.graph)
            file = scratch / f"{step.described.name.replace('/', '-')}-{precision}.onnx"
            write_part(step.graph, file)
            described.append(as_float32(step.described))
            name = f"{step.described.name} in {precision}"
            # ONNX Runtime makes Gemm nodes of lowered products, which it fuses with no DequantizeLinear
            engines.append(OnnxRuntimeEngine(name, file, prepack=False, fuse_quantized=False))
            del step
            gc.collect()  # a graph's nodes and tensors refer to each other, and to the weights
    return Chain(bundle.manifest, engines, described)


@contextmanager
def _older_objects_frozen() -> Iterator[None]:
    """gc.collect() inside looks only at objects made inside. With torch and onnx imported there are a million older ones, which
    would take a second each time."""
    frozen_before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:  # gc.unfreeze() would also release what the caller has frozen
            gc.unfreeze()


def as_float32(step: PlanStep) -> PlanStep:
    """The description of an emulated step: low values are carried as float32."""

    def widened(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        low = {dtype.name for dtype in LOW_TYPES.values()}
        return tuple(s.model_copy(update={"dtype": "float32"}) if s.dtype in low else s for s in specs)

    return step.model_copy(update={"inputs": widened(step.inputs), "outputs": widened(step.outputs)})


def run_scene(chain: Chain, scene: Scene, *, keep_all: bool, keep_tensors: bool = False) -> ChainResult:
    """A pass at the bundle's ξ, or with every token kept."""
    manifest = chain.manifest
    every = range(manifest.tokens + 1)
    # by their number: at ξ = 1 a token whose confidence is rounded to more than 1 would stop
    counts = [manifest.tokens] * len(manifest.decisions) if keep_all else None
    return chain.run(scene.image[None], manifest.thresholds, every, counts=counts, keep_tensors=keep_tensors)


def _on_disk(result: ChainResult, folder: Path) -> ChainResult:
    """The same with its tensors mapped from files: those of all passes together may be larger than the memory."""
    folder.mkdir()

    def moved(array: np.ndarray, number: int) -> np.ndarray:
        np.save(folder / f"{number}.npy", array)
        return np.load(folder / f"{number}.npy", mmap_mode="r") if array.size else array

    tensors = {name: moved(array, number) for number, (name, array) in enumerate(result.tensors.items())}
    return replace(result, logits=moved(result.logits, len(tensors)), tensors=tensors)


def _plan_differences(chain: Chain, scene: Scene, reference: ChainResult) -> dict[str, float]:
    """Each plan's largest difference from `reference` when it reads what float32 made; infinite where it is not finite."""
    known = {**reference.tensors, "image": scene.image[None], "logits": reference.logits}
    found: dict[str, float] = {}
    for step, engine in zip(chain.steps, chain.engines, strict=True):
        if not isinstance(step, PlanStep) or step.kind != "plan" or any(s.name not in known for s in step.inputs):
            continue  # an operation, or a plan that this pass did not reach
        made = engine.run({s.name: known[s.name] for s in step.inputs}, dict.fromkeys(s.name for s in step.outputs))
        compared = [s.name for s in step.outputs if s.dtype == "float32" and s.name in known]
        found[step.name] = max((_relative(made[name], known[name]) for name in compared), default=0.0)
    return found


def _relative(made: np.ndarray, reference: np.ndarray) -> float:
    if not np.isfinite(made).all():
        return float("inf")
    scale = float(np.abs(reference).max(initial=0)) or 1.0
    return float(np.abs(made - reference).max(initial=0)) / scale


def _keep_maps(manifest: Manifest, result: ChainResult) -> np.ndarray:
    return decision_maps(result.decisions, manifest.tokens, len(manifest.decisions))[0]
