"""Quantizers beside each other on one part of a model: dovit's own, NNCF, ModelOpt and ONNX Runtime's, each with static int8.

    dovit-export --ckpt dinov2.pth --head head.pth --dense --out dense/
    python -m dovit.benchmarks.quantizers --engine dense/ --images photos/ [--modelopt-python venv/bin/python]

The part is the bundle's first plan, from an image to tokens: of a dense bundle all layers. Every quantizer gets the same
calibration images and may quantize products of activations with weights, nothing else. OpenVINO runs what they made. The error
is RMS difference over RMS value of the tokens, on images that calibration did not see. Prints JSON. A quantizer whose package is
missing is left out, with the reason; ModelOpt, which wants other versions of onnx, may be in an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from dovit.benchmarks.report import machine_and_versions
from dovit.engines.lowering.files import read_step, write_part
from dovit.engines.lowering.lower import LoweredStep, lower_bundle
from dovit.evaluation.cli.options import sample_evenly
from dovit.export.quantization.images import at_model_size
from dovit.export.quantization.nodes import apply
from dovit.export.quantization.products import quantize_product
from dovit.export.quantization.ranges import observe, products
from dovit.export.quantization.types import TYPES
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.options import Engine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image
from dovit.runtime.openvino.device import computes_bf16

VERSION = "version.txt"
PACKAGES = ("openvino", "onnxruntime", "onnx", "nncf")
# arguments: part (.onnx), calibration images (.npy), files to write: the quantized part (.onnx), ModelOpt's version
MODELOPT = """
import sys
import numpy as np
from importlib.metadata import version
from modelopt.onnx.quantization import quantize
part, images, out, about = sys.argv[1:]
quantize(part, quantize_mode="int8", calibration_data={"image": np.load(images)}, calibration_method="max",
         calibration_eps=["cpu"], op_types_to_quantize=["MatMul"], high_precision_dtype="fp32", output_path=out,
         use_external_data_format=True)
open(about, "w").write(version("nvidia-modelopt"))
"""


@dataclass(frozen=True)
class Task:
    """What a quantizer gets. `part`: the float32 ONNX file, with weights beside it; `images`: uint8 [N, H, W, 3] to calibrate
    with; `folder`: where it writes."""

    bundle: Bundle
    part: Path
    images: np.ndarray
    folder: Path

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        """The part's inputs, an image at a time."""
        return ({"image": image[None]} for image in self.images)


def command(
    engine: Engine,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Image files, folders, or quoted globs; may be repeated. Default: noise."),
    ] = None,
    calibrate: Annotated[int, typer.Option(min=1, metavar="N", help="Images to calibrate with.")] = 8,
    measured: Annotated[int, typer.Option(min=1, metavar="N", help="Other images to measure the error on.")] = 4,
    modelopt_python: Annotated[
        Path, typer.Option(metavar="FILE", help="A Python that has ModelOpt. Default: this one.", show_default=False)
    ] = Path(sys.executable),
) -> None:
    """Compare quantizers on the first part of a float32 bundle."""
    bundle = open_bundle(engine)
    if bundle.manifest.precision != "fp32":
        raise UsageError(f"{engine}: its products are {bundle.manifest.precision} already; give a float32 bundle")
    print(
        json.dumps(compare(bundle, _images(bundle, images, calibrate + measured), measured, modelopt_python), indent=1)
    )


def compare(bundle: Bundle, images: np.ndarray, measured: int, modelopt_python: Path) -> dict[str, Any]:
    """The report. `images`: uint8 [N, H, W, 3] of the bundle's size, of which the last `measured` are not calibrated with.
    Raises DovitError where OpenVINO is missing."""
    quantizers: dict[str, Callable[[Task], Path]] = {
        "dovit": quantize_by_dovit,
        "NNCF, OpenVINO model": quantize_by_nncf,
        "NNCF, ONNX model": quantize_by_nncf_onnx,
        "ModelOpt, max": partial(quantize_by_modelopt, python=modelopt_python),
        "ONNX Runtime, min-max": quantize_by_onnxruntime,
    }
    rows, left_out = [], {}
    with TemporaryDirectory(prefix="dovit-quantizers-") as name, redirect_stdout(sys.stderr):  # what the packages print
        scratch = Path(name)
        part = _first_part(bundle)
        [output] = [spec.name for spec in part.described.outputs if spec.name.startswith("tokens")]
        count = len(products(part.graph))
        file = scratch / "part.onnx"
        write_part(part.graph, file)
        held_out = images[len(images) - measured :]
        reference, _ = _run(file, output, held_out, "f32")
        in_bf16 = _run(file, output, held_out, "bf16")[0] if computes_bf16() else None  # it would run in float32
        for title, quantize in quantizers.items():
            folder = scratch / title
            folder.mkdir()
            start = time.perf_counter()
            try:
                made = quantize(Task(bundle, file, images[: len(images) - measured], folder))
            except ImportError as error:
                left_out[title] = f"the package {error.name} is not installed"
                continue
            except DovitError as error:
                left_out[title] = str(error)
                continue
            except Exception as error:  # of whichever package
                left_out[title] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
                continue
            seconds = time.perf_counter() - start
            tokens, types = _run(made, output, held_out, "f32")
            in_int8 = sum(number for kind, number in types.items() if kind in ("i8", "u8"))
            row = {"name": title, "error": _error(tokens, reference), "in_int8": in_int8, "seconds": seconds}
            if (folder / VERSION).is_file():  # of a package that is not this process's
                row["version"] = (folder / VERSION).read_text()
            rows.append(row)
    return {
        "engine": str(bundle.root),
        "architecture": bundle.manifest.architecture,
        "image_size": list(bundle.manifest.image_size),
        "part": part.described.name,
        "products": count,
        "calibrated": len(images) - measured,
        "measured": measured,
        "error_of_bf16": None if in_bf16 is None else _error(in_bf16, reference),
        **machine_and_versions(PACKAGES),
        "rows": rows,
        "left_out": left_out,
    }


def quantize_by_dovit(task: Task) -> Path:
    """As `dovit-export --precision int8`, without leaving products out."""
    ranges = observe(task.bundle, list(task.images), task.folder, lambda _: None)
    graph = _first_part(task.bundle).graph
    quantized = {
        node.name: quantize_product(node, ranges[node.inputs[0].name], TYPES["int8"])
        for step in task.bundle.manifest.steps
        for node in products(read_step(task.bundle.onnx(step)))
        if node.inputs[0].name in ranges
    }
    apply(graph, quantized)
    file = task.folder / "int8.onnx"
    write_part(graph, file)
    return file


def quantize_by_nncf(task: Task) -> Path:
    """NNCF's settings for transformers on an OpenVINO model, symmetric."""
    import openvino as ov

    file = task.folder / "int8.xml"
    ov.save_model(_by_nncf(ov.Core().read_model(task.part), task), file, compress_to_fp16=False)
    return file


def quantize_by_nncf_onnx(task: Task) -> Path:
    """The same on an ONNX model."""
    import onnx

    file = task.folder / "int8.onnx"
    onnx.save(_by_nncf(onnx.load(task.part), task), file, save_as_external_data=True)
    return file


def _by_nncf(model: Any, task: Task) -> Any:
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(list(task.feeds())),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(task.images),
    )


def quantize_by_modelopt(task: Task, python: Path) -> Path:
    """ModelOpt's calibration by largest values, in a process of `python`. Raises DovitError with its last line."""
    file, images = task.folder / "int8.onnx", task.folder / "images.npy"
    np.save(images, task.images)
    try:
        done = subprocess.run(
            [python, "-c", MODELOPT, task.part, images, file, task.folder / VERSION],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise DovitError(f"{python} cannot be started: {error.strerror or error}") from None
    if done.returncode:
        raise DovitError((done.stderr.strip().splitlines() or ["it failed"])[-1][:300])
    return file


def quantize_by_onnxruntime(task: Task) -> Path:
    """`quantize_static` by least and largest values, symmetric, weights with a scale for each output."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = task.feeds()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    file = task.folder / "int8.onnx"
    quantize_static(
        task.part,
        file,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        use_external_data_format=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True},
    )
    return file


def _images(bundle: Bundle, given: list[str] | None, count: int) -> np.ndarray:
    """uint8 [N, H, W, 3] of the bundle's size: evenly spread over those given, or noise."""
    height, width = bundle.manifest.image_size
    if not given:
        return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    files = sample_evenly([one.file for one in find_inputs(given)], count)
    if len(files) < count:
        raise UsageError(f"--images: {len(files)} images for {count} to calibrate with and to measure; give more")
    order = np.random.default_rng(0).permutation(count)  # so that both come from the whole list
    return np.stack([at_model_size(bundle.manifest, read_image(files[k])) for k in order])


def _first_part(bundle: Bundle) -> LoweredStep:
    """As plans are built of it: without ONNX functions and without token pass, for one image. Only what makes its tokens: the
    other packages would quantize the head's product too, which dovit never does."""
    part = next(step for step in lower_bundle(bundle, "fp32") if step.described.kind == "plan")
    part.graph.outputs = [tensor for tensor in part.graph.outputs if tensor.name.startswith("tokens")]
    part.graph.cleanup()
    return part


def _run(file: Path, output: str, images: np.ndarray, hint: str) -> tuple[list[np.ndarray], Mapping[str, int]]:
    """An output for each image by OpenVINO, and how many matrix products it executes in each type."""
    try:
        import openvino as ov
    except ImportError:
        raise DovitError("the comparison needs the package openvino: pip install 'dovit[openvino]'") from None
    compiled = ov.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    types: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        if about["layerType"].astype(str) in ("FullyConnected", "MatMul"):
            kind = about["runtimePrecision"].astype(str)
            types[kind] = types.get(kind, 0) + 1
    return [np.array(compiled({"image": image[None]})[output]) for image in images], types


def _error(made: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Mean over the images of RMS difference over RMS value."""
    pairs = zip(made, reference, strict=True)
    return float(np.mean([np.linalg.norm(one - other) / np.linalg.norm(other) for one, other in pairs]))


if __name__ == "__main__":
    run_command(command, "python -m dovit.benchmarks.quantizers")
