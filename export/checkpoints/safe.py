"""Reading a file without running anything that is in it."""

from __future__ import annotations

import contextlib
import json
import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dovit.runtime.errors import DovitError


class _Ignored:
    """Stands for a training run's bookkeeping: swallows whatever the pickle hands it and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


# what mmengine and mmcv runners write beside the tensors; none of it is needed, so none of it is really built.
# Even `getattr` is only a name here: the real one could reach anything.
IGNORED_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)


def read_file(path: Path) -> dict[str, Any]:
    """The content of a `.pth` or `.safetensors` file: for the latter {'dovit': config or None, 'state_dict': …}.

    Tensors of the present torch format are mapped from the file, not copied. Raises DovitError with one sentence where
    the file is missing, cut off, no checkpoint, or asks for code to be run.
    """
    try:
        if path.is_dir():
            raise DovitError(f"{path}: a folder; --ckpt takes the checkpoint file in it")
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError:
        raise DovitError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise DovitError(f"{path}: cannot be read: {error.strerror}") from None
    if not size:
        raise DovitError(f"{path}: the file is empty; download or copy the checkpoint again")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path)
    content = _torch(path, is_zip=head[:2] == b"PK")
    if not isinstance(content, dict):
        raise DovitError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights; save the state_dict")
    return content


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get("dovit")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            return {"dovit": json.loads(config) if config else None, "state_dict": state}
    except (SafetensorError, ValueError, OSError) as error:
        raise DovitError(f"{path}: damaged or cut off ({error}); download or copy it again") from None


def _torch(path: Path, *, is_zip: bool) -> Any:
    if is_zip:
        _check_zip(path)
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED_NAMES]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: what cannot be read is said below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        wanted = _wanted(path, str(error))
        if wanted:
            raise DovitError(
                f"{path}: this pickle wants {wanted}, which a file of weights does not need; nothing of it was run. "
                f"Save the state_dict alone with a tool that you trust"
            ) from None
        raise DovitError(f"{path}: not a checkpoint that torch.save wrote, or damaged; nothing of it was run") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise DovitError(
            f"{path}: not a checkpoint, damaged or cut off ({_first_line(error)}); copy it again"
        ) from None


def _wanted(path: Path, message: str) -> str | None:
    """The name that a refused pickle asks for: from torch's message, or from the pickle's own instructions, unexecuted."""
    named = re.search(r"GLOBAL `?([\w.]+\.[\w.]+)", message)
    if named:
        return named[1]
    texts: list[str] = []
    with contextlib.suppress(Exception), path.open("rb") as stream:  # not a pickle at all: then it names nothing
        for operation, argument, _ in pickletools.genops(stream):
            name = str(argument).replace(" ", ".") if operation.name == "GLOBAL" else ".".join(texts[-2:])
            if operation.name in ("GLOBAL", "STACK_GLOBAL") and not name.startswith(("torch.", "collections.")):
                return name
            if isinstance(argument, str):
                texts.append(argument)
    return None


def _check_zip(path: Path) -> None:
    with contextlib.suppress(zipfile.BadZipFile):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return
        raise DovitError(f"{path}: a zip archive without a torch checkpoint in it; unpack it and give the .pth file")
    raise DovitError(f"{path}: cut off (the end of the archive is missing); download or copy it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
