"""The structs of dovit_kernels.h for ctypes, read from the header itself, so that they are written down only there."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

HEADER = Path(__file__).parent / "kernels" / "dovit_kernels.h"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRUCT = re.compile(r"typedef struct dovit_(\w+)_args \{(.*?)\} dovit_\1_args;", re.DOTALL)
_FIELD = re.compile(r"(?:const )?(\w+)(\*?) (\w+);")
_TYPES: dict[str, Any] = {"size_t": ctypes.c_size_t, "int32_t": ctypes.c_int32, "uint64_t": ctypes.c_uint64}


@cache
def structs() -> dict[str, type[ctypes.Structure]]:
    """By the kernel's name. A pointer is a c_void_p, an address. Raises ValueError for a field that is not understood."""
    found = {}
    for name, body in _STRUCT.findall(_COMMENT.sub("", HEADER.read_text(encoding="utf-8"))):
        fields = []
        for line in filter(None, map(str.strip, body.splitlines())):
            parsed = _FIELD.fullmatch(line)
            if parsed is None or not (parsed[2] or parsed[1] in _TYPES):
                raise ValueError(f"{HEADER}: {line!r} in dovit_{name}_args is no `type name;` of a type that is known")
            fields.append((parsed[3], ctypes.c_void_p if parsed[2] else _TYPES[parsed[1]]))
        found[name] = type(f"dovit_{name}_args", (ctypes.Structure,), {"_fields_": fields})
    return found
