"""The dense model of a bundle as a chain on a GPU: its weights without decisions, one plan from the image to the logits."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from dovit.engines.build import build_plans
from dovit.engines.options import BuildOptions
from dovit.export.graph.dense import dense_bundle
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.open import open_chain


def dense_chain(bundle: Bundle, plans: PlanSet) -> GpuChain:
    """The baseline of the bundle's `plans`: built as they were, and captured. Raises DovitError where the bundle has no ONNX
    files or this machine cannot."""
    options = BuildOptions(
        plans.flavour,
        plans.precision,
        plans.batch,
        compute_capabilities=plans.compute_capabilities,
        workspace_mib=plans.workspace_mib,
        optimisation_level=plans.optimisation_level,
    )
    with TemporaryDirectory(prefix="dovit-dense-") as folder:
        dense = dense_bundle(bundle, Path(folder))
        built = build_plans(dense, dense.root, options)
        files = dense.manifest.files | built.files
        dense = Bundle(dense.root, dense.manifest.model_copy(update={"files": files}))
        return open_chain(dense, built.plans, graph=True)
