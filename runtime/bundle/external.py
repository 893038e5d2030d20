"""Lists the external data files of an ONNX model, without the onnx package.

An ONNX file is a protobuf message: fields, each a number with a wire type and a value. Only the fields that lead to a
tensor's `external_data` are followed, everything else is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_NESTING = 100  # messages in messages, protobuf's own limit
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

# message → {number of a field: the message that it holds}, as onnx.proto has them
FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}


def external_files(content: bytes) -> set[str]:
    """The `location` of every external tensor in an ONNX model. Raises ValueError where `content` is no protobuf message."""
    found: set[str] = set()
    waiting = [(memoryview(content), "ModelProto", 1)]
    while waiting:
        message, kind, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise ValueError(f"messages nested more than {MAX_NESTING} deep")
        if kind == "StringStringEntryProto":
            entry = {number: bytes(value) for number, value in _fields(message)}
            if entry.get(1) == b"location":
                found.add(entry.get(2, b"").decode())
            continue
        inner = FIELDS[kind]
        waiting += [(value, inner[number], depth + 1) for number, value in _fields(message) if number in inner]
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, value) of each field that holds bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("field number 0")
        if wire == VARINT:
            _, at = _varint(message, at)
        elif wire == BYTES:
            size, at = _varint(message, at)
            if size > end - at:
                raise ValueError("a field is cut off")
            yield number, message[at : at + size]
            at += size
        elif wire in (FIXED32, FIXED64):
            at += 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
    if at != end:
        raise ValueError("a field is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for number, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, at + number + 1
    raise ValueError("a number is cut off")
