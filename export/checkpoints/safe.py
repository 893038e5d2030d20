"""Reading a file without running anything that is in it."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dovit.export.checkpoints.archive import check_archive
from dovit.export.checkpoints.pickles import read_storages
from dovit.runtime.errors import DovitError, first_line
from dovit.runtime.files import check_regular, parse_json

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(
    10, "little"
)  # early in what torch before 1.6 wrote, 4 pickles and the data


_HEADER_LIMIT = 100_000_000  # bytes, the safetensors library's own


class _Ignored:
    """Replaces objects of a training run in a pickle: accepts any arguments and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


# what mmengine and mmcv runners write beside the tensors; none of it is needed, so none of it is really built.
# `getattr` is replaced too: the real one could reach any object.
IGNORED_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)


def read_file(path: Path) -> dict[str, Any]:
    """The content of a `.pth` or `.safetensors` file: for the latter {'dovit': config or None, 'state_dict': …}.

    Tensors are read into memory and not mapped from the file: one that is cut short meanwhile would end the process with
    SIGBUS. Raises DovitError with one sentence where the file is missing, cut off, damaged, no checkpoint, or asks for code
    to be run.
    """
    try:
        state = path.stat()
        check_regular(state, path)
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise DovitError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise DovitError(
            f"{path}: a folder without config.json; give a checkpoint file, or a folder as Hugging Face's libraries write it"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise DovitError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not head:
        raise DovitError(f"{path}: the file is empty; download or copy the checkpoint again")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path, int.from_bytes(head[:8], "little"), state.st_size)
    content = _torch(path, head, state.st_size)
    if not isinstance(content, dict):
        raise DovitError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights; save the state_dict")
    return content


def _safetensors(path: Path, header_size: int, size: int) -> dict[str, Any]:
    if not 2 <= header_size <= min(size - 8, _HEADER_LIMIT):
        raise DovitError(f"{path}: damaged or cut off (its header has an impossible length); download or copy it again")
    try:
        content = path.read_bytes()
        state = dict(
            sorted(safetensors.torch.load(content).items())
        )  # checks lengths and offsets; the order is the library's
        header = parse_json(content[8 : 8 + header_size])
        metadata = header.get("__metadata__", {})
        config = metadata.get("dovit")
        return {"dovit": parse_json(config) if config else None, "metadata": metadata, "state_dict": state}
    except MemoryError:
        raise
    except Exception as error:  # types of numbers that this torch lacks raise any exception
        reason = str(error) or type(error).__name__
        raise DovitError(f"{path}: damaged or cut off ({reason}); download or copy it again") from error


def _torch(path: Path, head: bytes, size: int) -> Any:
    if head[:2] == b"PK":
        check_archive(path)
    elif _LEGACY_MAGIC in head:
        with path.open("rb") as stream:
            needed = sum(storage.size for storage in read_storages(path, stream, size, pickles=4))
        if needed > size:
            raise DovitError(f"{path}: cut off (its tensors need {needed} bytes, it has {size}); copy it again")
    else:  # torch would unpickle it before it sees that the number is missing
        raise _refused(path, "")
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED_NAMES]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: what cannot be read is said below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        wanted = _wanted(path, str(error))
        if wanted:
            raise DovitError(
                f"{path}: this pickle wants {wanted}, which a file of weights does not need; nothing of it was run. "
                f"Save the state_dict alone with a tool that you trust"
            ) from None
        raise DovitError(
            f"{path}: not a checkpoint that torch.save wrote, or damaged; nothing of it was run"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged pickle makes of torch's own functions
        raise DovitError(
            f"{path}: not a checkpoint, damaged or cut off ({first_line(error)}); copy it again"
        ) from error


def _refused(path: Path, message: str) -> DovitError:
    wanted = _wanted(path, message)
    if wanted is None:
        return DovitError(f"{path}: not a checkpoint that torch.save wrote, or damaged; nothing of it was run")
    return DovitError(
        f"{path}: this pickle wants {wanted}, which a file of weights does not need; nothing of it was run. "
        f"Save the state_dict alone with a tool that you trust"
    )


def _wanted(path: Path, message: str) -> str | None:
    """The name that a refused pickle asks for: from torch's message, or from the pickle's own instructions, unexecuted."""
    named = re.search(r"GLOBAL `?([\w.]+\.[\w.]+)", message)
    if named:
        return named[1]
    texts: list[str] = []
    with contextlib.suppress(Exception), path.open("rb") as stream:  # not a pickle at all: then it names nothing
        for operation, argument, _ in itertools.islice(pickletools.genops(stream), 100_000):
            name = str(argument).replace(" ", ".") if operation.name == "GLOBAL" else ".".join(texts[-2:])
            if operation.name in ("GLOBAL", "STACK_GLOBAL") and not name.startswith(("torch.", "collections.")):
                return name
            if isinstance(argument, str):
                texts = [*texts[-1:], argument]
    return None
