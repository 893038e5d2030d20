"""Bounds of a manifest's sizes and of its steps' tensors, and that no step reads what no step before it makes.

`runtime/cpp/bundle/check.cpp` checks the same. A plan set's program has checks of its own (program.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from dovit.runtime.bundle.dimensions import full_dims
from dovit.runtime.bundle.manifest import Manifest, Step
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import DovitError

MAX_PIXELS = 1 << 15  # of an image's side
MAX_CLASSES = 32767  # labels are int16 at most
MAX_ELEMENTS = 1 << 40  # of a tensor
MAX_DIMENSIONS = 8  # of a tensor, as TensorRT has it


def check_manifest(manifest: Manifest, file: Path) -> None:
    """Raises DovitError where sizes are impossible, or a step reads what no step before it makes."""
    checker = _Checker(manifest, file)
    checker.sizes()
    checker.steps()


@dataclass(frozen=True)
class _Checker:
    manifest: Manifest
    file: Path

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise DovitError(f"{self.file}: the manifest contradicts itself ({what}); export the bundle again")

    def sizes(self) -> None:
        manifest, sides = self.manifest, range(1, MAX_PIXELS + 1)
        self.expect(all(side in sides for side in manifest.image_size), "image_size")
        self.expect(
            manifest.patch in sides and all(side % manifest.patch == 0 for side in manifest.image_size), "patch"
        )
        self.expect(0 <= manifest.prefix <= 1024, "prefix")
        self.expect(manifest.merge_cells <= 1024 and not (manifest.merge and manifest.merge_cells), "merge_cells")
        self.expect(manifest.cells <= manifest.prefix, "merge_cells")
        self.expect(1 <= manifest.classes <= MAX_CLASSES, "classes")
        strides = zip(manifest.slide_stride, manifest.image_size, strict=True)
        self.expect(
            all(1 <= stride <= side for stride, side in strides), "slide_stride"
        )  # else pixels without a window
        self.expect(all(math.isfinite(value) for value in manifest.mean), "mean")
        self.expect(all(math.isfinite(value) and value > 0 for value in manifest.std), "std")
        decisions = len(manifest.decisions)
        self.expect(decisions <= 1024 and len(manifest.thresholds) == decisions, "thresholds")
        self.expect(all(0 <= threshold <= 1 for threshold in manifest.thresholds), "thresholds")
        self.expect(all(1 <= decision.lens_kernel <= 1024 for decision in manifest.decisions), "lens_kernel")
        # a decision rounds its kept count up to one of them, so the last holds all tokens
        sizes = list(manifest.capacities)
        self.expect(sizes == sorted(sizes) and sizes[:1] >= [0] and sizes[-1] == manifest.tokens, "capacities")
        for name, each in (("class_names", manifest.class_names), ("palette", manifest.palette)):
            self.expect(each is None or len(each) == manifest.classes, name)
        self.expect(all(0 <= value <= 255 for colour in manifest.palette or () for value in colour), "palette")

    def elements(self, spec: TensorSpec, dims: dict[str, int]) -> int:
        """Of a tensor at its largest."""
        count = 1
        self.expect(len(spec.shape) <= MAX_DIMENSIONS, f"tensor {spec.name} has an impossible size")
        for dimension in spec.shape:
            if isinstance(dimension, str):
                self.expect(dimension in dims, f"tensor {spec.name} has the dimension {dimension}")
                dimension = dims[dimension]
            count *= dimension
            possible = 0 <= dimension <= MAX_ELEMENTS and count <= MAX_ELEMENTS
            self.expect(possible, f"tensor {spec.name} has an impossible size")
        return count

    def given(self) -> dict[str, TensorSpec]:
        """What steps may read before any of them has run."""
        types = {"image": "uint8", "stopped_count0": "int64", "capacities": "int64"}
        types |= {decision.threshold: "float32" for decision in self.manifest.decisions}
        return {name: TensorSpec.model_validate({"name": name, "dtype": t, "shape": ()}) for name, t in types.items()}

    def flow(self, step: Step, dims: dict[str, int], made: dict[str, TensorSpec]) -> None:
        """A step reads what was made before, and adds what it makes."""
        for spec in step.inputs:
            self.expect(spec.name in made, f"step {step.name} reads {spec.name}, which no step before it makes")
            self.expect(made[spec.name].dtype == spec.dtype, f"tensor {spec.name} has two types")
            if spec.name != "capacities":  # their number is the caller's
                self.elements(spec, dims)
        for spec in step.outputs:
            self.elements(spec, dims)
            self.expect(spec.name not in made, f"tensor {spec.name} is made twice")
            made[spec.name] = spec

    def steps(self) -> None:
        manifest = self.manifest
        self.expect(bool(manifest.steps), "no steps")
        dims, made = full_dims(manifest, 1), self.given()
        decided = 0
        for step in manifest.steps:
            self.flow(step, dims, made)
            decided += self.decides(step, decided)
        self.expect(decided == len(manifest.decisions), "decisions that no step makes")
        if manifest.decisions:  # the first sees the tokens before the patches, and all patches
            first = made.get(manifest.decisions[0].state.tokens)
            length = manifest.prefix + manifest.tokens
            self.expect(first is None or first.shape[1:2] == (length,), "prefix")
        self.results(manifest.steps[-1])

    def decides(self, step: Step, following: int) -> bool:
        """Whether the step makes the decision that comes next."""
        numbers = {decision.keep: number for number, decision in enumerate(self.manifest.decisions)}
        found = [spec for spec in step.outputs if spec.name in numbers]
        for spec in found:
            self.expect(numbers[spec.name] == following and spec.dtype == "int32", f"decision {spec.name}")
        self.expect(len(found) <= 1, f"step {step.name} makes two decisions")
        return bool(found)

    def results(self, last: Step) -> None:
        manifest, made = self.manifest, {spec.name: spec for spec in last.outputs}
        labels, logits = made.get("labels"), made.get("logits")
        wanted = "uint8" if manifest.classes <= 256 else "int16"
        self.expect(labels is not None and labels.dtype in ("uint8", "int16"), "labels")
        assert labels is not None
        batches = ("batch", 1)
        fits = len(labels.shape) == 3 and labels.shape[0] in batches and labels.shape[1:] == manifest.image_size
        self.expect(fits, "labels")
        fits = logits is not None and logits.dtype == "float32" and len(logits.shape) == 4
        fits = fits and logits is not None and logits.shape[0] in batches and logits.shape[1] == manifest.classes
        self.expect(fits, "logits")
        assert logits is not None
        sides = logits.shape[2:]
        self.expect(all(isinstance(side, int) and 1 <= side <= MAX_PIXELS for side in sides), "logits")
        self.expect(labels.dtype == wanted, "labels")
