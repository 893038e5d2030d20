"""Lowered bundles of small models: their plans run on the fake GPU, and on the CPU for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bundles import make_bundle
from fake_gpu import (
    EmulatedKernels,
    FakeDevice,
    FakeEngine,
    FakeKernels,
)
from models import randomised, small_config, spreading_thresholds

from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.planning.write import plan_program
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.program import Program
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.gpu.program import LoadedProgram

CAPACITIES = (0, 5, 11, 17, 24)
KINDS = [
    ("setr-naive", "conv", 1),
    ("setr-naive", "setr-k3", 1),
    ("setr-mla", "conv", 1),
    ("setr-mla", "fcn", 2),
    ("segmenter-mask", "setr-k1", 1),
    ("segmenter-linear", "fcn", 0),
]


@dataclass
class Lowered:
    """A bundle's steps as plans of a batch, with ONNX Runtime to run them."""

    model: DoViT
    manifest: Manifest
    plans: PlanSet
    program: Program
    engines: dict[str, OnnxRuntimeEngine]
    chain: Chain

    def engines_on(self, device: FakeDevice) -> dict[str, FakeEngine]:
        """Engines of ONNX Runtime in place of its plans."""
        return {s.name: FakeEngine(device, s, self.engines[s.name]) for s in self.plans.steps if s.kind == "plan"}

    def load_program(self, device: FakeDevice) -> tuple[LoadedProgram, dict[str, FakeEngine]]:
        """The program on a device, and its engines."""
        engines = self.engines_on(device)
        return LoadedProgram(self.manifest, self.plans, self.program, engines, FakeKernels(device), device), engines

    def gpu_chain(self, device: FakeDevice | None = None, graph: bool | None = None) -> GpuChain:
        """The chain on a device, default a new one."""
        device = device or FakeDevice()
        return self.chain_over(self.engines_on(device), FakeKernels(device), device, graph)

    def chain_over(
        self,
        engines: Mapping[str, FakeEngine],
        kernels: FakeKernels | EmulatedKernels,
        device: FakeDevice,
        graph: bool | None = None,
    ) -> GpuChain:
        """The chain over these engines and kernels."""
        return GpuChain(self.manifest, self.plans, self.program, engines, kernels, device, graph=graph)


def lowered(folder: Path, decoder: str, head: str, prefix: int, batch: int, family: str | None = None) -> Lowered:
    """A small model's, with its files in `folder`. `family`: one of BACKBONES, with a prefix of its own."""
    model = randomised(small_config(decoder, prefix, head, family=family))
    manifest = make_bundle(model, folder / "bundle", CAPACITIES)
    engines, described = {}, []
    for step in lower_bundle(open_bundle(folder / "bundle"), "fp32", batch=batch):
        file = folder / f"{step.described.name.replace('/', '-')}.onnx"
        write_part(step.graph, file)
        engines[step.described.name] = OnnxRuntimeEngine(step.described.name, file)
        described.append(step.described)
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
        steps=tuple(described),
    )
    program = plan_program(manifest, plans.steps, batch)
    return Lowered(model, manifest, plans, program, engines, Chain(manifest, list(engines.values()), described))


Maker = Callable[..., Lowered]


def some_thresholds(made: Lowered, images: np.ndarray) -> list[tuple[float, ...]]:
    """Thresholds at which no token stops, every one at the first decision, every one at the second, and some at each."""
    pixels = torch.from_numpy(images)
    spread = [
        spreading_thresholds(made.model, pixels, keep, list(CAPACITIES))
        for keep in ((0.7, 0.7), (0.4, 0.5), (0.8, 0.2))
    ]
    return [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), *spread]


def same(found: ChainResult, expected: ChainResult) -> None:
    """Sums are added in another order than ONNX Runtime's, so a confidence may differ in its last digits; nothing else may."""
    assert len(found.decisions) == len(expected.decisions)
    for one, other in zip(found.decisions, expected.decisions, strict=True):
        assert np.array_equal(one.index, other.index) and np.array_equal(one.keep, other.keep)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-5)
    assert found.labels.dtype == expected.labels.dtype and found.labels.shape == expected.labels.shape
    assert (found.labels == expected.labels).mean() > 0.999
