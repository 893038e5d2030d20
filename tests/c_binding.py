"""dovit.h for the tests, by ctypes: the structs as the header has them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMATS = {"rgb": (0, 3), "bgr": (1, 3), "rgba": (2, 4), "bgra": (3, 4), "grey": (4, 1)}


class LoadOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("backend", c_char_p),
        ("device", c_char_p),
        ("onnxruntime", c_char_p),
        ("tensorrt", c_char_p),
        ("plugins", c_char_p),
        ("precision", c_char_p),
        ("graph", c_int),
        ("threads", c_int),
        ("low_memory", c_int),
        ("workers", c_int),
        ("schedule", c_int),
        ("thresholds", ctypes.POINTER(c_double)),
        ("threshold_count", c_size_t),
        ("provider", c_char_p),
        ("openvino", c_char_p),
        ("cache", c_char_p),
        ("skip_accuracy_check", c_int),
    ]


class Info(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("architecture", c_char_p),
        ("backend", c_char_p),
        *((name, c_int) for name in ("height", "width", "grid_height", "grid_width", "classes", "decisions")),
        ("label_bytes", c_int),
        ("thresholds", ctypes.POINTER(c_double)),
        ("mode", c_int),
        ("resize", c_int),
        ("provider", c_char_p),
        ("precision", c_char_p),
    ]


class Image(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("width", c_int),
        ("height", c_int),
        ("stride", c_size_t),
        ("format", c_int),
        ("memory", c_int),
    ]


class RunOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("mode", c_int),
        ("schedule", c_int),
        ("thresholds", ctypes.POINTER(c_double)),
        ("threshold_count", c_size_t),
        ("counts", ctypes.POINTER(c_int64)),
        ("count_count", c_size_t),
        ("return_logits", c_int),
        ("labels", c_void_p),
        ("labels_stride", c_size_t),
        ("labels_memory", c_int),
        ("stream", c_void_p),
        ("resize", c_int),
    ]


class Labels(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("width", c_int), ("height", c_int), ("label_bytes", c_int)]


@dataclass(frozen=True)
class Result:
    labels: np.ndarray
    kept: tuple[int, ...]
    tokens: int
    keep_maps: np.ndarray  # [windows, D, h, w]
    confidence_maps: np.ndarray
    logits: np.ndarray
    windows: list[tuple[int, int]]
    filled: tuple[int, int]  # height and width of the image within the padded size


class Failure(Exception):
    """A status other than DOVIT_OK, and the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Session:
    """dovit_session, with what a test needs of it."""

    def __init__(self, library: Path, bundle: Path, onnxruntime: Path, **options: object) -> None:
        self.c = ctypes.CDLL(str(library))
        self.c.dovit_last_error.restype = c_char_p
        self.c.dovit_result_tokens.restype = c_int64
        self.c.dovit_result_labels.restype = Labels
        for name in ("session_free", "result_free", "result_tokens", "result_labels"):
            getattr(self.c, f"dovit_{name}").argtypes = [c_void_p]
        for name in ("kept", "keep_maps", "confidence_maps", "windows", "logits"):
            getattr(self.c, f"dovit_result_{name}").argtypes = [c_void_p, c_void_p]
            getattr(self.c, f"dovit_result_{name}").restype = c_void_p
        if options.get("backend") not in (b"tensorrt", b"tensorrt-rtx"):
            options = {"provider": b"cpu"} | options  # even where OpenVINO is installed
        given = LoadOptions(size=ctypes.sizeof(LoadOptions), onnxruntime=str(onnxruntime).encode(), **options)
        self.handle = c_void_p()
        self._check(self.c.dovit_session_load(str(bundle).encode(), ctypes.byref(given), ctypes.byref(self.handle)))

    def info(self) -> tuple[str, str]:
        """The provider, and the precision in which it computes."""
        info = Info(size=ctypes.sizeof(Info))
        self._check(self.c.dovit_session_info(self.handle, ctypes.byref(info)))
        return info.provider.decode(), info.precision.decode()

    def __del__(self) -> None:
        self.c.dovit_session_free(self.handle)

    def __call__(
        self,
        pixels: np.ndarray,
        format: str = "rgb",
        *,
        mode: str = "",
        keep_ratio: bool | None = None,
        schedule: str = "exact",
        threshold: Sequence[float] | None = None,
        counts: Sequence[int] | None = None,
        copy_labels_to: int | None = None,
        **changes: object,
    ) -> Result:
        """`pixels` [H, W(, C)] uint8 as they lie, rows of any stride; `changes`: other fields of the structs.
        `copy_labels_to`: device memory for the labels afterwards."""
        image = Image(pixels.ctypes.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], FORMATS[format][0], 0)
        options = RunOptions(
            size=ctypes.sizeof(RunOptions),
            mode=["", "whole", "slide"].index(mode),
            resize=[None, False, True].index(keep_ratio),
            schedule=["", "exact", "bucketed", "rounded"].index(schedule),
            return_logits=1,
        )
        if threshold is not None:
            options.thresholds = (c_double * len(threshold))(*threshold)
            options.threshold_count = len(threshold)
        if counts is not None:
            options.counts = (c_int64 * len(counts))(*counts)
            options.count_count = len(counts)
        for name, value in changes.items():
            setattr(image if name == "memory" else options, name, value)
        handle = c_void_p()
        self._check(
            self.c.dovit_session_run(self.handle, ctypes.byref(image), ctypes.byref(options), ctypes.byref(handle))
        )
        try:
            if copy_labels_to is not None:
                self._check(self.c.dovit_result_copy_labels(handle, c_void_p(copy_labels_to), c_size_t(0), 1, None))
            return self._result(handle)
        finally:
            self.c.dovit_result_free(handle)

    def _check(self, status: int) -> None:
        if status:
            raise Failure(status, self.c.dovit_last_error().decode())

    def _result(self, handle: c_void_p) -> Result:
        labels = self.c.dovit_result_labels(handle)
        kind = np.uint8 if labels.label_bytes == 1 else np.int16
        shape = (labels.height, labels.width)
        count = c_size_t()
        kept = _array(self.c.dovit_result_kept(handle, ctypes.byref(count)), np.int64, (count.value,))
        corners = self.c.dovit_result_windows(handle, ctypes.byref(count))
        windows = _array(corners, np.int32, (count.value, 2))
        maps = (c_int64 * 4)()
        keep = self.c.dovit_result_keep_maps(handle, maps)
        confidence = self.c.dovit_result_confidence_maps(handle, maps)
        filled = c_int(), c_int()
        self.c.dovit_result_filled(handle, ctypes.byref(filled[0]), ctypes.byref(filled[1]))
        sizes = (c_int64 * 3)()
        logits = self.c.dovit_result_logits(handle, sizes)
        return Result(
            labels=_array(labels.data, kind, shape) if labels.data else np.zeros(0, kind),
            kept=tuple(int(k) for k in kept),
            tokens=self.c.dovit_result_tokens(handle),
            keep_maps=_array(keep, np.uint8, tuple(maps)).astype(bool),
            confidence_maps=_array(confidence, np.float32, tuple(maps)),
            logits=_array(logits, np.float32, tuple(sizes)),
            windows=[(int(y), int(x)) for y, x in windows],
            filled=(filled[0].value, filled[1].value),
        )


def _array(address: int | None, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    data = ctypes.string_at(address, size) if size and address else b""
    return np.frombuffer(data, kind).reshape(shape)
