"""The `config.pbtxt` of a bundle: its tensors, batching, instances, versions and warm-up, as Triton's ModelConfig has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.errors import printable

MARK = "# Written by dovit-serve"  # the first line of each config.pbtxt that dovit-serve writes
# Names of the tensors, which clients use. Exactly one of IMAGE and ENCODED is sent.
IMAGE, ENCODED, THRESHOLD, MODE = "image", "encoded", "threshold", "mode"
LABELS, KEPT, KEEP_MAPS, CONFIDENCE_MAPS, LOGITS = "labels", "kept", "keep_maps", "confidence_maps", "logits"


@dataclass(frozen=True)
class Serving:
    """How Triton runs the model. `parameters` are arguments of `dovit.load`, as text."""

    instances: int = 1  # on the CPU, or on each GPU
    gpus: tuple[int, ...] = ()  # none: the CPU
    max_batch: int = 8
    queue_delay: int = 0  # microseconds that the first request waits for others of its size
    versions: int = 1  # how many, from the highest, are served
    warm_up: bool = True
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tensor:
    """An input or output, without its batch dimension; -1 stands for any size."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


def inputs_of(manifest: Manifest) -> list[Tensor]:
    """The inputs that a client may send."""
    found = [
        Tensor(IMAGE, "TYPE_UINT8", (-1, -1, 3), optional=True),
        Tensor(ENCODED, "TYPE_STRING", (1,), optional=True),
        Tensor(MODE, "TYPE_STRING", (1,), optional=True),
    ]
    if manifest.decisions:
        found.append(Tensor(THRESHOLD, "TYPE_FP32", (-1,), optional=True))
    return found


def outputs_of(manifest: Manifest) -> list[Tensor]:
    """The outputs that a client may ask for. Maps have a dimension of windows: 1 in mode whole."""
    labels = "TYPE_UINT8" if manifest.classes <= 256 else "TYPE_INT16"
    found = [Tensor(LABELS, labels, (-1, -1)), Tensor(LOGITS, "TYPE_FP32", (manifest.classes, -1, -1))]
    if decisions := len(manifest.decisions):
        maps = (-1, decisions, *manifest.grid)
        found += [
            Tensor(KEPT, "TYPE_INT32", (decisions,)),
            Tensor(KEEP_MAPS, "TYPE_BOOL", maps),
            Tensor(CONFIDENCE_MAPS, "TYPE_FP32", maps),
        ]
    return found


def config_text(name: str, manifest: Manifest, serving: Serving) -> str:
    """The text of `config.pbtxt`."""
    height, width = manifest.image_size
    on = f"gpus: [ {_numbers(serving.gpus)} ]\n    kind: KIND_GPU" if serving.gpus else "kind: KIND_CPU"
    parts = [
        f"{MARK} for {printable(manifest.architecture)}, {height}×{width}, {manifest.classes} classes: see docs/triton.md",
        f'name: {_text(name)}\nbackend: "python"\nmax_batch_size: {serving.max_batch}',
        _tensors("input", inputs_of(manifest)),
        _tensors("output", outputs_of(manifest)),
        "# requests whose inputs have equal shapes are batched\n"
        f"dynamic_batching {{\n  max_queue_delay_microseconds: {serving.queue_delay}\n}}",
        f"instance_group [\n  {{\n    count: {serving.instances}\n    {on}\n  }}\n]",
        f"version_policy {{\n  latest {{\n    num_versions: {serving.versions}\n  }}\n}}",
    ]
    if serving.warm_up:
        parts.append(_warm_up(height, width))
    for key, value in serving.parameters:
        parts.append(f"parameters {{\n  key: {_text(key)}\n  value {{\n    string_value: {_text(value)}\n  }}\n}}")
    return "\n\n".join(parts) + "\n"


def _tensors(field: str, tensors: Sequence[Tensor]) -> str:
    return f"{field} [\n" + ",\n".join(_tensor(tensor) for tensor in tensors) + "\n]"


def _tensor(tensor: Tensor) -> str:
    lines = [
        f"name: {_text(tensor.name)}",
        f"data_type: {tensor.data_type}",
        f"dims: [ {_numbers(tensor.dims)} ]",
        *(["optional: true"] if tensor.optional else []),
    ]
    return "  {\n" + "\n".join(f"    {line}" for line in lines) + "\n  }"


def _warm_up(height: int, width: int) -> str:
    """One black image of the bundle's size."""
    return f"""model_warmup [
  {{
    name: "one black image"
    batch_size: 1
    inputs {{
      key: {_text(IMAGE)}
      value {{
        data_type: TYPE_UINT8
        dims: [ {height}, {width}, 3 ]
        zero_data: true
      }}
    }}
  }}
]"""


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _text(value: str) -> str:
    """A string of protobuf's text format, which has JSON's escapes."""
    return json.dumps(value, ensure_ascii=False)
