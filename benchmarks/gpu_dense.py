"""The dense model of a bundle as a chain on a GPU: its weights without decisions, one plan from the image to the logits."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

from dovit.engines.build import build_plans
from dovit.engines.options import BuildOptions
from dovit.export.graph.dense import dense_graph
from dovit.runtime.bundle.macs import StepMacs
from dovit.runtime.bundle.manifest import FileEntry, Step
from dovit.runtime.bundle.open import Bundle, sha256
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.write import copy_files
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


def dense_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """`bundle`'s model without decisions, as ONNX in one step, in the folder `folder`. Raises DovitError for a bundle without
    ONNX files."""
    manifest = bundle.manifest
    graph = dense_graph(bundle)
    copy_files(bundle, folder, [name for name in manifest.files if name.endswith(".weights")])
    beside = bundle.onnx(manifest.steps[0]).parent.relative_to(bundle.root)  # the weights, which it refers to by name
    name = (beside / "dense.onnx").as_posix()
    file = folder / name
    file.write_bytes(graph.SerializeToString())
    paper, true = manifest.dense_macs
    [image] = [spec for spec in manifest.steps[0].inputs if spec.name == "image"]
    step = Step(
        name="dense",
        onnx=name,
        inputs=(image,),
        outputs=manifest.steps[-1].outputs,
        parameters=sum(math.prod(weights.dims) for weights in graph.graph.initializer if math.prod(weights.dims) > 1),
        macs=StepMacs(fixed=paper, fixed_pairs=true - paper),
    )
    changed = {
        "steps": (step,),
        "decisions": (),
        "thresholds": (),
        "capacities": (0, manifest.tokens),
        "taps": (),
        "plans": (),
        "source": None,
        "files": {name: FileEntry(sha256=sha256(file), size=file.stat().st_size)},
    }
    return Bundle(folder, manifest.model_copy(update=changed))
