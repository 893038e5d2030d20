"""`TritonPythonModel` for Triton's Python backend: requests to `dovit.Session` and back.

A model's `1/model.py`, which dovit-serve writes, imports it; it runs in a process that Triton starts for each instance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton's: there in its processes only

from dovit.runtime.arguments import check_thresholds
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb, decode_image
from dovit.runtime.loading import load
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.serving.config import CONFIDENCE_MAPS, ENCODED, IMAGE, KEEP_MAPS, KEPT, LABELS, LOGITS, MODE, THRESHOLD

BUNDLE = "bundle"  # the folder beside model.py


@dataclass(frozen=True)
class Settings:
    """What requests must agree on to be run together."""

    mode: str | None
    threshold: tuple[float, ...] | None
    logits: bool


@dataclass(frozen=True)
class Asked:
    """A request, read and checked. `number`: its place among those of the call."""

    number: int
    images: list[np.ndarray]  # each uint8 [H, W, 3]
    settings: Settings
    outputs: set[str]


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle beside model.py. Raises DovitError, which Triton reports as why the model is unavailable."""
        _check_numpy()
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        options: dict[str, Any] = {key: given[key] for key in ("backend", "precision") if key in given}
        if "threads" in given:
            options["threads"] = _whole_number("threads", given["threads"])
        elif instances := _cpu_instances(config):
            # each instance is a process with threads of its own: together as many as there are cores
            options["threads"] = max(1, len(os.sched_getaffinity(0)) // instances) if instances > 1 else None
        if args["model_instance_kind"] == "GPU":
            options["device"] = int(args["model_instance_device_id"])
        self._session: Session = load(Path(args["model_repository"]) / args["model_version"] / BUNDLE, **options)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request. What is wrong with one is its own response's error; the others get theirs."""
        responses: list[Any] = [None] * len(requests)
        asked: list[Asked] = []
        for number, request in enumerate(requests):
            try:
                asked.append(self._read(number, request))
            except Exception as error:
                responses[number] = _failure(error, of_client=isinstance(error, DovitError))
        for settings, group in groupby(asked, key=lambda one: one.settings):
            together = list(group)
            for one, made in zip(together, self._run(together, settings), strict=True):
                responses[one.number] = made
        return responses

    def finalize(self) -> None:
        """Free the model's memory."""
        self._session.close()

    def _read(self, number: int, request: Any) -> Asked:
        outputs = set(request.requested_output_names())
        mode = _input(request, MODE)
        threshold = _input(request, THRESHOLD)
        settings = Settings(
            mode=None if mode is None else _same_for_all(MODE, [_as_text(value) for value in mode[:, 0]]),
            threshold=None
            if threshold is None
            else check_thresholds(
                self._session.manifest, _same_for_all(THRESHOLD, [tuple(map(float, row)) for row in threshold])
            ),
            logits=LOGITS in outputs,
        )
        return Asked(number, _images(request), settings, outputs)

    def _run(self, together: Sequence[Asked], settings: Settings) -> list[Any]:
        """A response each. All images go through one stream, which on a GPU overlaps copies and computation."""
        try:
            results = iter(self._results([image for one in together for image in one.images], settings))
        except Exception as error:
            if len(together) == 1:
                return [_failure(error, of_client=isinstance(error, UsageError))]
            return [response for one in together for response in self._run([one], settings)]
        return [_response([next(results) for _ in one.images], one.outputs) for one in together]

    def _results(self, images: list[np.ndarray], settings: Settings) -> list[Result]:
        return list(
            self._session.stream(
                images,
                mode=cast(Mode | None, settings.mode),  # the session refuses others
                threshold=settings.threshold,
                return_logits=settings.logits,
            )
        )


def _check_numpy() -> None:
    """Raises DovitError where NumPy's arrays reach Triton empty: Python backends up to Triton 2.52 know NumPy 1's layout only."""
    values = np.arange(1, 4, dtype=np.uint8)
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        return
    if not np.array_equal(pb_utils.Tensor.from_dlpack("values", values).as_numpy(), values):
        raise DovitError(
            f"this server's Python backend cannot take arrays of NumPy {np.__version__} (from {Path(np.__file__).parent}), as "
            "none up to Triton 2.52 (container 24.11) can: install 'numpy<2' in its Python, or run a newer server"
        )


def _cpu_instances(config: dict[str, Any]) -> int:
    return sum(int(group["count"]) for group in config.get("instance_group", []) if group["kind"] == "KIND_CPU")


def _whole_number(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"config.pbtxt: the parameter {key} is {text!r}: give a whole number") from None


def _input(request: Any, name: str) -> np.ndarray | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _images(request: Any) -> list[np.ndarray]:
    """The images of a request, each uint8 [H, W, 3]."""
    pixels, encoded = _input(request, IMAGE), _input(request, ENCODED)
    if (pixels is None) == (encoded is None):
        found = "none" if pixels is None else "both"
        raise UsageError(
            f"a request has either the input {IMAGE} (UINT8 [batch, height, width, 3]) or the input {ENCODED} (BYTES [batch, 1], "
            f"files such as PNG or JPEG), this one {found}"
        )
    if encoded is not None:
        images = [decode_image(content, f"input {ENCODED}") for content in encoded[:, 0]]
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:  # their labels would not make one tensor
            shown = ", ".join("×".join(map(str, size)) for size in sorted(sizes))
            raise UsageError(f"input {ENCODED}: images of {shown} pixels: send each size in a request of its own")
        return images
    assert pixels is not None
    return [as_rgb(image) for image in pixels]


def _same_for_all(name: str, values: list[Any]) -> Any:
    if any(value != values[0] for value in values):
        raise UsageError(
            f"input {name}: one value for all images of a request; send the others in a request of their own"
        )
    return values[0]


def _as_text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _response(results: Sequence[Result], outputs: set[str]) -> Any:
    made = {
        LABELS: lambda one: one.labels,  # [H, W]
        KEPT: lambda one: np.array(one.kept, np.int32),  # [D]
        KEEP_MAPS: lambda one: _windows(one, one.keep_maps),  # [windows, D, h, w]
        CONFIDENCE_MAPS: lambda one: _windows(one, one.confidence_maps),
        LOGITS: lambda one: one.logits,  # [C, h', w']
    }
    tensors = [pb_utils.Tensor(name, _stacked(map(make, results))) for name, make in made.items() if name in outputs]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _windows(result: Result, maps: np.ndarray) -> np.ndarray:
    return maps if result.windows else maps[None]


def _stacked(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.stack(list(arrays)))


def _failure(error: Exception, *, of_client: bool) -> Any:
    if isinstance(error, DovitError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "not enough memory for this image: send a smaller one"
    else:
        text = f"internal error: {type(error).__name__}: {error}"
        pb_utils.Logger.log_error(f"dovit: {text}")
    code = pb_utils.TritonError.INVALID_ARG if of_client else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text, code))
