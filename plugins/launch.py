"""The kernels from Python: addresses of device memory, sizes and a stream, all plain integers.

`plugins/kernels/dovit_kernels.h` says what each of them reads and writes, and which arguments it takes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from dovit.plugins import load
from dovit.plugins.structs import structs
from dovit.runtime.errors import DovitError

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}  # DOVIT_FLOAT32 and so on


class Kernels:
    """The kernels of the plugin library. `kernels.decide(…, stream)` queues one: its arguments are the fields of its struct but
    for `size`, in their order or by name, and then the address of a CUDA stream. None waits; each raises DovitError where
    CUDA refuses the launch.

    A `type` is float32, float16 or bfloat16; what lies on the host is a numpy array.
    """

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        """`library`: default the installed one. Raises DovitError where there is none."""
        self._library = library or load()
        for name in structs():
            function = getattr(self._library, f"dovit_{name}")
            function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_int
        self._library.dovit_gather_scratch_bytes.restype = ctypes.c_size_t
        self._library.dovit_error_string.restype = ctypes.c_char_p

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in structs():
            raise AttributeError(f"dovit_kernels.h has no kernel {name!r}: {', '.join(structs())}")

        def launch(*arguments: Any, **named: Any) -> None:
            status = self.status(name, *arguments, **named)
            if status:
                reason = self._library.dovit_error_string(status).decode()
                raise DovitError(f"the kernel {name} could not be launched: {reason}")

        setattr(self, name, launch)
        return launch

    def status(self, name: str, *arguments: Any, **named: Any) -> int:
        """The cudaError_t of a launch. Raises TypeError where arguments are missing or too many."""
        struct = structs()[name]
        wanted = [*(field for field, _ in struct._fields_[1:]), "stream"]  # type: ignore[misc]
        given = dict(zip(wanted, arguments, strict=False)) | named
        if len(arguments) + len(named) != len(wanted) or {*given} != {*wanted}:
            raise TypeError(f"{name} takes {', '.join(wanted)}")
        stream = given.pop("stream")
        made = struct(ctypes.sizeof(struct), **{field: _plain(value) for field, value in given.items()})
        return int(getattr(self._library, f"dovit_{name}")(ctypes.byref(made), stream))

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        """Bytes of scratch memory that `gather` needs."""
        return int(self._library.dovit_gather_scratch_bytes(batch, count, channels))

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        """(table int32, weights a pixel) of one direction of `resize`."""
        width = ctypes.c_int()
        count = self._library.dovit_resize_taps(source, target, None, ctypes.byref(width))
        table = np.empty(count, np.int32)
        self._library.dovit_resize_taps(source, target, table.ctypes.data_as(ctypes.c_void_p), ctypes.byref(width))
        return table, width.value


def _plain(value: Any) -> Any:
    """A type's number, an array's address."""
    if isinstance(value, str):
        return TYPES[value]
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous and value.dtype == np.float32, "the kernels read float32 on the host"
        return value.ctypes.data
    return value
