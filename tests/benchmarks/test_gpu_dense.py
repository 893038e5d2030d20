"""The dense baseline of a bundle's plans, one plan from the image to the logits: on the fake GPU, and built by TensorRT-RTX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from fake_gpu import FakeDevice, FakeEngine, FakeKernels
from installed import require
from models import random_images, randomised, small_config

from dovit.benchmarks import gpu_dense
from dovit.benchmarks.gpu_chain import over_plans
from dovit.benchmarks.torch_candidates import Dense
from dovit.engines.add import Added, plan_builder
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.options import BuildOptions
from dovit.engines.planning.write import plan_program
from dovit.export.graph.dense import dense_bundle
from dovit.export.run import add_plans
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.chain import GpuChain


def chain_of(bundle: Bundle, folder: Path, batch: int) -> GpuChain:
    """Its one plan run by ONNX Runtime, on the fake GPU."""
    lowered = lower_bundle(bundle, "fp32", batch=batch)
    steps = tuple(step.described for step in lowered)
    assert [(step.name, step.kind) for step in steps] == [("dense", "plan"), ("labels", "labels")]
    write_part(lowered[0].graph, folder / "dense.onnx")
    plans = PlanSet(
        flavour="tensorrt-rtx",
        version="0",
        cuda=None,
        compute_capabilities=(),
        precision="fp32",
        batch=batch,
        plugin_version=None,
        workspace_mib=None,
        optimisation_level=None,
        steps=steps,
    )
    device = FakeDevice()
    engine = FakeEngine(device, steps[0], OnnxRuntimeEngine("dense", folder / "dense.onnx"))
    program = plan_program(bundle.manifest, steps, batch)
    return GpuChain(bundle.manifest, plans, program, {"dense": engine}, FakeKernels(device), device)


@pytest.mark.parametrize(
    ("decoder", "head", "prefix", "batch"),
    [
        ("setr-naive", "conv", 1, 2),
        ("setr-mla", "setr-k3", 2, 1),
        ("segmenter-linear", "fcn", 0, 1),
    ],
)
def test_it_is_the_dense_model(decoder: str, head: str, prefix: int, batch: int, tmp_path: Path) -> None:
    model = randomised(small_config(decoder, prefix, head))
    make_bundle(model, tmp_path / "bundle")
    dense = dense_bundle(open_bundle(tmp_path / "bundle"), tmp_path / "dense")
    chain = chain_of(dense, tmp_path, batch)
    images = random_images(model.config, batch)
    found = chain.run(images.numpy(), (), dense.manifest.capacities)
    assert found.decisions == ()
    np.testing.assert_allclose(found.logits, model(images, (1.0, 1.0)).logits.numpy(), rtol=1e-3, atol=1e-4)
    assert (found.labels == Dense(model)(images).numpy()).mean() > 0.999
    assert dense.manifest.macs(()) == dense.manifest.dense_macs == open_bundle(tmp_path / "bundle").manifest.dense_macs
    heads = sum(p.numel() for p in model.heads.parameters())
    assert dense.manifest.steps[0].parameters == pytest.approx(
        sum(p.numel() for p in model.parameters()) - heads, rel=0.01
    )


def test_its_plan_is_built_as_the_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By TensorRT-RTX itself, in the same precision and for the same GPUs; the bundle stays as it is."""
    require("tensorrt_rtx")
    make_bundle(randomised(small_config("setr-mla")), tmp_path)
    options = BuildOptions("tensorrt-rtx", "fp16", batch=2, compute_capabilities=("8.9",))
    add_plans(tmp_path, tmp_path, plan_builder(options, None, Added()))
    opened: list[tuple[Manifest, PlanSet, int, bool]] = []

    def remember(bundle: Bundle, plans: PlanSet, *, graph: bool) -> None:
        sizes = [bundle.path(step.plan.file).stat().st_size for step in plans.steps if step.plan]
        opened.append((bundle.manifest, plans, sum(sizes), graph))

    monkeypatch.setattr(gpu_dense, "open_chain", remember)
    monkeypatch.setattr("dovit.benchmarks.gpu_chain.open_chain", remember)
    before = sorted(tmp_path.rglob("*"))
    over_plans(tmp_path, "tensorrt-rtx", "fp16")
    (dense, plans, size, graph), (whole, own, _, _), (_, _, _, segmented) = opened
    assert [(step.name, step.kind) for step in plans.steps] == [
        ("dense", "plan"),
        ("labels", "labels"),
    ] and size > 100_000
    assert dense.decisions == () and len(whole.decisions) == 2
    same = {"flavour", "version", "precision", "batch", "compute_capabilities", "workspace_mib", "optimisation_level"}
    assert plans.model_dump(include=same) == own.model_dump(include=same) and plans.compute_capabilities == ("8.9",)
    assert (graph, segmented) == (True, False)
    assert sorted(tmp_path.rglob("*")) == before


def test_only_plans_need_what_builds_them() -> None:
    """Over torch the benchmark runs without; over plans it says what is missing."""
    code = "import sys; sys.modules['onnx_graphsurgeon'] = None\n"
    code += "from pathlib import Path; from dovit.benchmarks import gpu_chain as b\n"
    code += "try: b.over_plans(Path('engines'), 'tensorrt-rtx', 'fp16')\nexcept b.DovitError as error: print(error)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        made.stdout == "the dense model's plan needs the package onnx_graphsurgeon: pip install 'dovit[tensorrt-rtx]'\n"
    )


def test_a_bundle_of_plans_alone_says_what_is_missing(tmp_path: Path) -> None:
    manifest = make_bundle(randomised(small_config()), tmp_path)
    bare = manifest.model_copy(update={"steps": tuple(s.model_copy(update={"onnx": None}) for s in manifest.steps)})
    with pytest.raises(DovitError, match="this needs the ONNX files"):
        dense_bundle(Bundle(tmp_path, bare), tmp_path / "dense")
    assert not (tmp_path / "dense").exists()
