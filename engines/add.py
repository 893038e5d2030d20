"""Plans for a bundle: built, measured against float32, and put into its manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dovit.engines.accuracy import Scene, check_accuracy, measure_accuracy, measuring_digest
from dovit.engines.build import BuiltPlans, build_plans
from dovit.engines.options import BuildOptions
from dovit.engines.overflow import overflowing_nodes
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import Accuracy, Precision
from dovit.runtime.progress import Progress

SCENES = 2  # enough to tell a precision that fails from one that does not; dovit-eval measures properly


@dataclass
class Added:
    """What the last call of the builder did."""

    plans: BuiltPlans | None = None


def plan_builder(
    options: BuildOptions, scenes: Callable[[Manifest], Sequence[Scene]] | None, added: Added
) -> Callable[[Bundle, Manifest | None, Progress], Manifest]:
    """What the export calls with a bundle that has its ONNX files. `scenes` makes images for the accuracy check, which is
    left out for None; `added` is filled in."""

    def add(bundle: Bundle, old: Manifest | None, progress: Progress) -> Manifest:
        accuracy, float32_nodes = _known_accuracy(old, bundle.manifest, options)
        if scenes and options.precision != "fp32":
            # before the plans: a precision that cannot be used need not be built
            if accuracy is None:
                accuracy, float32_nodes = _measured(bundle, options.precision, scenes(bundle.manifest), progress)
            check_accuracy(accuracy, options.precision, quantized=bundle.manifest.precision != "fp32")
        built = added.plans = build_plans(bundle, bundle.root, options, progress, float32_nodes=float32_nodes)
        plan_set = built.plans.model_copy(update={"accuracy": accuracy})
        return bundle.manifest.model_copy(
            update={"plans": (*bundle.manifest.plans, plan_set), "files": bundle.manifest.files | built.files}
        )

    return add


def _measured(
    bundle: Bundle, precision: Precision, scenes: Sequence[Scene], progress: Progress
) -> tuple[Accuracy, tuple[str, ...]]:
    """The accuracy of `precision`, and the nodes that stay float32 since fp16 cannot hold their values: none in most models."""
    accuracy = measure_accuracy(bundle, precision, scenes, progress)
    if precision != "fp16" or not any(np.isinf(difference) for difference in accuracy.differences.values()):
        return accuracy, ()
    nodes = overflowing_nodes(bundle, scenes, progress)
    if not nodes:
        return accuracy, ()
    return measure_accuracy(bundle, precision, scenes, progress, float32_nodes=nodes), nodes


def _known_accuracy(
    old: Manifest | None, new: Manifest, options: BuildOptions
) -> tuple[Accuracy | None, tuple[str, ...]]:
    """What was measured before of the same files, at the same ξ: the flavour makes no difference to it. Also its nodes that stay
    float32."""
    if old is None or [s.onnx for s in old.steps] != [s.onnx for s in new.steps] or old.thresholds != new.thresholds:
        return None, ()
    for plans in old.plans:
        known = plans.accuracy
        if known and plans.precision == options.precision and known.lowering == measuring_digest():
            return known, plans.float32_nodes
    return None, ()
