"""A float32 bundle as a quantized one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dovit.engines.accuracy import Scene
from dovit.engines.lowering.files import read_step
from dovit.export.build import FOLDER
from dovit.export.graph.save import save_step
from dovit.export.graph.split import StepGraph
from dovit.export.quantization.measure import Reference
from dovit.export.quantization.nodes import apply
from dovit.export.quantization.products import QuantizedProduct, quantize_product
from dovit.export.quantization.ranges import observe, products
from dovit.export.quantization.search import search
from dovit.export.quantization.types import TYPES
from dovit.runtime.bundle.manifest import FileEntry, Manifest, Step
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.bundle.quantization import Quantization, QuantizedName
from dovit.runtime.errors import DovitError, UsageError

HELD_OUT_SHARE = 4  # one in so many calibration images is kept for measuring, where there are that many
MAX_MEASURED = 16


@dataclass(frozen=True)
class Calibration:
    """Images of the bundle's size, [H, W, 3] uint8, and those to measure with; none: some of the former."""

    images: Sequence[Scene]
    measured: Sequence[Scene] = ()

    def divided(self) -> tuple[Sequence[Scene], Sequence[Scene]]:
        """Images to calibrate with, and to measure with."""
        if self.measured:
            return self.images, self.measured
        if len(self.images) < HELD_OUT_SHARE:
            return self.images, self.images
        held = self.images[HELD_OUT_SHARE - 1 :: HELD_OUT_SHARE]
        return [scene for n, scene in enumerate(self.images, start=1) if n % HELD_OUT_SHARE], held[:MAX_MEASURED]


def quantize(
    bundle: Bundle, kind: QuantizedName, calibration: Calibration, folder: Path, progress: Callable[[str], None]
) -> Manifest:
    """Write the steps of `bundle` with products of type `kind` into `folder`/onnx, which may be the bundle's own; its float32
    files stay. Returns the manifest of the quantized bundle, without plans.

    Raises UsageError for a bundle that is quantized already, DovitError where no product can be quantized.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise UsageError(
            f"{bundle.root}: its products are {manifest.precision} already; quantize the float32 bundle, or the checkpoint"
        )
    images, measured = calibration.divided()
    (folder / FOLDER).mkdir(exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".quantizing-") as name:
        scratch = Path(name)
        quantized, step_of = _products(bundle, kind, images, scratch, progress)
        reference = Reference(bundle, measured, progress)
        chosen, left, figures = search(reference, quantized, step_of, scratch, progress)
        del reference
    gc.collect()
    steps: list[Step] = []
    files: dict[str, FileEntry] = {}
    counts: dict[str, int] = {}
    for step in manifest.steps:
        progress(f"writing the steps in {kind}: {step.name}")
        saved, entries, counts[step.name] = _write(bundle, step, chosen, folder)
        if kind == "fp8":  # which no CPU computes
            for file in saved.openvino:
                (folder / file).unlink()
                del entries[file]
            saved = saved.model_copy(update={"openvino": ()})
        steps.append(saved)
        files |= entries
    return manifest.model_copy(
        update={
            "precision": kind,
            "steps": tuple(steps),
            "files": files,
            "plans": (),
            "quantization": Quantization(
                calibrated=len(images),
                products=counts,
                left=left,
                measured=len(measured),
                held_out=measured is not images,
                errors=figures.errors,
                label_agreement=figures.label_agreement,
                same_fate=figures.same_fate,
                miou=figures.miou,
            ),
        }
    )


def _products(
    bundle: Bundle, kind: QuantizedName, images: Sequence[Scene], scratch: Path, progress: Callable[[str], None]
) -> tuple[dict[str, QuantizedProduct], dict[str, str]]:
    """Every product quantized, by name, and the step that each is in."""
    ranges = observe(bundle, [scene.image for scene in images], scratch, progress)
    quantized: dict[str, QuantizedProduct] = {}
    step_of: dict[str, str] = {}
    for step in bundle.manifest.steps:
        progress(f"quantizing {step.name}")
        for node in products(read_step(bundle.onnx(step))):
            quantized[node.name] = quantize_product(node, ranges[node.inputs[0].name], TYPES[kind])
            step_of[node.name] = step.name
    if not quantized:
        raise DovitError(f"{bundle.root}: its steps have no product of tokens and weights that could be quantized")
    return quantized, step_of


def _write(
    bundle: Bundle, step: Step, chosen: dict[str, QuantizedProduct], folder: Path
) -> tuple[Step, dict[str, FileEntry], int]:
    """The step's new description, its files, and how many of its products are quantized."""
    graph = read_step(bundle.onnx(step))
    count = apply(graph, chosen)
    graph.functions = []  # save_step adds those that are used
    saved = save_step(StepGraph(step.name, graph), folder / FOLDER)
    entries = {f"{FOLDER}/{file.path}": FileEntry(sha256=file.sha256, size=file.size) for file in saved.files}
    described = step.model_copy(
        update={
            "onnx": f"{FOLDER}/{saved.onnx.path}",
            "openvino": tuple(f"{FOLDER}/{file.path}" for file in saved.openvino),
        }
    )
    return described, entries, count
