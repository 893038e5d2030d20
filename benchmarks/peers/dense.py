"""The dense model under other runtimes: what a user would run instead of the chain.

Each function loads one model and returns what labels one image with it, [1, H, W, 3] uint8 → [1, H, W].
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dovit.runtime.openvino.device import CpuPrecision, check_precision, computes_bf16

Labels = Callable[[np.ndarray], np.ndarray]


def onnxruntime_fp32(model: Path, threads: int) -> Labels:
    """ONNX Runtime's CPU provider, with its default options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(["labels"], {"image": image})[0])


def onnxruntime_int8(model: Path, threads: int) -> Labels:
    """Weights of matrix products in int8, activations quantised as they come (`quantize_dynamic`)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preprocessing step at every call
    with TemporaryDirectory(prefix="dovit-int8-") as folder:
        copied = shutil.copytree(model.parent, Path(folder) / "fp32")  # onnx reads no weights through hard links
        quantised = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copied / model.name,
            quantised,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            use_external_data_format=True,
        )
        return onnxruntime_fp32(quantised, threads)


def openvino(model: Path, threads: int, precision: CpuPrecision) -> Labels:
    """OpenVINO's CPU device. Raises UsageError for bf16 on a CPU without it."""
    import openvino as ov

    check_precision(precision)
    return _compiled(ov.Core().read_model(model), threads, precision)


def openvino_int8(model: Path, threads: int, images: np.ndarray) -> Labels:
    """Static quantisation by NNCF with its settings for transformers, calibrated on `images` [N, H, W, 3] uint8."""
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([image[None] for image in images])
    quantised = nncf.quantize(
        ov.Core().read_model(model), data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images)
    )
    return _compiled(quantised, threads, "bf16" if computes_bf16() else "fp32")


def _compiled(model: Any, threads: int, precision: CpuPrecision) -> Labels:
    import openvino as ov

    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()

    def labels(image: np.ndarray) -> np.ndarray:
        request.infer({"image": image})
        return np.array(request.get_tensor("labels").data)

    return labels


def torch_dense(
    checkpoint: Path, image_size: tuple[int, int], threads: int, precision: str, *, compiled: bool
) -> Labels:
    """The checkpoint in torch without its decisions, eager or by torch.compile; `precision`: fp32 or bf16."""
    import torch

    from dovit.benchmarks.torch_candidates import Dense
    from dovit.export.checkpoints.load import load_model
    from dovit.export.checkpoints.options import ReadOptions

    torch.set_num_threads(threads)
    options = ReadOptions(image_size=image_size, plain=True)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model: Any = Dense(load_model(checkpoint, options).model).eval().requires_grad_(False).to(dtype)
    if compiled:
        model = torch.compile(model)

    @torch.inference_mode()
    def labels(image: np.ndarray) -> np.ndarray:
        return np.asarray(model(torch.from_numpy(image)).numpy())

    return labels
