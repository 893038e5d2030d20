"""Finds what a checkpoint's pickle would build without building it: every name in it becomes an empty stand-in class."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from dovit.runtime.errors import DovitError

# A model of 480 tensors with AdamW's state takes 100,000 reads of its pickle, a second at most. Each can make 200 bytes.
MAX_READS = 300_000
MAX_ARGUMENTS = 1_000_000  # elements handed to constructors, which copy them or make so many

_BYTES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
    "QInt8": 1,
    "QInt32": 4,
    "QUInt8": 1,
    "QUInt4x2": 1,
    "QUInt2x4": 1,
    "Untyped": 1,
}
_SIZES = {f"torch.{kind}Storage": size for kind, size in _BYTES.items()}
_SIZES["torch.storage.UntypedStorage"] = 1


@dataclass(frozen=True)
class Storage:
    """A block of memory that tensors lie in: its name in the archive, and its bytes."""

    key: str
    size: int


class TooMuch(Exception):
    """A pickle that would build more than any checkpoint holds."""


class _StandIn:
    """Replaces every class and function of a pickle: accepts all arguments and keeps none."""

    count: _Counter

    def __new__(cls, *args: object, **kwargs: object) -> _StandIn:
        cls.count.arguments(args, sizes=not cls.__name__.startswith("torch._utils."))  # where integers are offsets
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """As lists have it."""

    def extend(self, values: object) -> None:
        """As lists have it."""


class _Counter:
    def __init__(self) -> None:
        self._reads = self._elements = 0

    def read(self) -> None:
        self._reads += 1
        if self._reads > MAX_READS:
            raise TooMuch(f"more than {MAX_READS // 2} objects")

    def arguments(self, args: tuple[object, ...], *, sizes: bool) -> None:
        for value in args:
            if isinstance(value, list | tuple | dict | set):
                self._elements += len(value)
            elif isinstance(value, int) and sizes:  # bytearray(10**9)
                self._elements += abs(value)
        if self._elements > MAX_ARGUMENTS:
            raise TooMuch(f"lists of more than {MAX_ARGUMENTS} elements")


class _Stream:
    """A file of `size` bytes that counts what the unpickler reads: one or two pieces an instruction."""

    def __init__(self, stream: BinaryIO, size: int, count: _Counter) -> None:
        self._stream, self._size, self._count = stream, size, count

    def read(self, size: int, /) -> bytes:
        """At most as much as there is: a file object makes room for whatever it is asked for."""
        self._count.read()
        return self._stream.read(min(size, self._size))

    def readline(self) -> bytes:
        """A line, as long as a name can be."""
        return self._stream.readline(1 << 16)


# the unpickler in Python: the one in C makes room for as large a memo as an instruction asks for, which may be gigabytes
class _Unpickler(pickle._Unpickler):
    # without the frames of protocol 4, which torch does not read: they would hide reads from the count
    dispatch: ClassVar = {code: does for code, does in pickle._Unpickler.dispatch.items() if code != pickle.FRAME[0]}

    def __init__(self, stream: _Stream, count: _Counter) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._count = count
        self._classes: dict[str, type[_StandIn]] = {}
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """A stand-in, always."""
        full = f"{module}.{name}"
        if full not in self._classes:
            self._classes[full] = type(full, (_StandIn,), {"count": self._count})
        return self._classes[full]

    def get_extension(self, code: int) -> None:
        """Names by number, which this process has registered: none."""
        raise pickle.UnpicklingError("an extension")

    def persistent_load(self, pid: Any) -> Any:
        """A storage, as torch.save names it: ('storage', its class, key, device, number of elements)."""
        kind, storage, key, _, count = pid[:5]
        size = _SIZES.get(storage.__name__) if isinstance(storage, type) and issubclass(storage, _StandIn) else None
        if kind != "storage" or size is None or type(key) is not str or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage that torch.save would not write")
        found = Storage(key, size * count)
        if self.storages.setdefault(key, found) != found:
            raise pickle.UnpicklingError(f"the storage {key} has two sizes")
        return _StandIn.__new__(self.find_class("torch.storage", "TypedStorage"))


def read_storages(path: Path, stream: BinaryIO, size: int, pickles: int = 1) -> list[Storage]:
    """The storages that `pickles` pickles, one after the other in `stream` of `size` bytes, name.

    Raises DovitError where they would build more than any checkpoint holds, or are no pickles of torch.save.
    """
    count = _Counter()
    storages: dict[str, Storage] = {}
    try:
        for _ in range(pickles):
            unpickler = _Unpickler(_Stream(stream, size, count), count)
            unpickler.load()
            storages |= unpickler.storages
    except TooMuch as error:
        raise DovitError(
            f"{path}: its pickle builds {error}, more than any checkpoint needs; get the original"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = str(error) or type(error).__name__
        raise DovitError(
            f"{path}: not a checkpoint that torch.save wrote, or damaged ({reason}); copy it again"
        ) from error
    return list(storages.values())
