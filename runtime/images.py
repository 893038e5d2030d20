"""Reads image files with Pillow, and converts images in memory, to uint8 RGB."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dovit.runtime.arrays import Format, Layout, array_as_rgb, check_layout
from dovit.runtime.errors import DovitError, UsageError, clipped
from dovit.runtime.files import check_regular

# a path, a Pillow image, a numpy array or a torch tensor: this module does not import torch
ImageLike = str | Path | Image.Image | np.ndarray | Any


def read_image(path: str | Path) -> np.ndarray:
    """The image file `path` as uint8 [H, W, 3] RGB, turned as its EXIF data say; alpha is dropped, as OpenCV does.

    16-bit channels keep their upper 8 bits. Raises DovitError where the file is missing or is no whole image.
    """
    with _readable_errors(path), Image.open(path) as image:
        image.load()
        return _rgb(image)


def read_pages(path: str | Path) -> Iterator[np.ndarray]:
    """Every page of a TIFF, or frame of an animation, one after the other, each as `read_image` returns it."""
    with _readable_errors(path), Image.open(path) as image:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            image.load()
            yield _rgb(image)


def decode_image(content: bytes, name: str) -> np.ndarray:
    """An image file's content as `read_image` returns it. `name` stands for the file in errors. Raises DovitError."""
    if not content:
        raise DovitError(f"{name}: holds no bytes; give the content of an image file, as PNG or JPEG")
    with _decoder_errors(name), Image.open(io.BytesIO(content)) as image:
        image.load()
        return _rgb(image)


@contextmanager
def _readable_errors(path: str | Path) -> Iterator[None]:
    try:
        try:
            found = Path(path).stat()
        except ValueError as error:  # a NUL in it
            raise DovitError(f"{path}: no file can have this name ({error}); check the path") from None
        check_regular(found, Path(path))  # opening a pipe would wait for a writer
        if not found.st_size:
            raise DovitError(f"{path}: the file is empty; get a whole copy")
        with _decoder_errors(path):
            yield
    except FileNotFoundError:
        if is_url(path):
            raise DovitError(f"{path}: URLs are not fetched: download the image, and give the file's path") from None
        raise DovitError(f"{path}: no such image; check the path") from None
    except IsADirectoryError:
        raise DovitError(f"{path}: a folder, not an image; name a file in it") from None
    except PermissionError:
        raise DovitError(f"{path}: may not be read; check its permissions") from None
    except OSError as error:
        raise DovitError(f"{path}: cannot be read ({error.strerror}); name an image file") from None


@contextmanager
def _decoder_errors(name: str | Path) -> Iterator[None]:
    """What Pillow raises for a file that is no whole image, as DovitError; the system's own OSErrors are passed on."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of metadata that we do not use, and of images half as large as those it refuses
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise DovitError(f"{name}: not an image that Pillow can read; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise DovitError(f"{name}: too many pixels; scale it down or cut it first") from None
    except (DovitError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder makes of a damaged file: each of Pillow's plugins has its own
        if isinstance(error, OSError) and error.errno is not None:  # the system's, and not a decoder's
            raise
        raise DovitError(f"{name}: the image is damaged or cut off ({_reason(error)}); get a whole copy") from None


def is_url(text: str | Path) -> bool:
    """Whether this is an address as `https://…`, and no path."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def as_rgb(image: ImageLike, format: Format = "rgb", layout: Layout = "hwc") -> np.ndarray:
    """An image given by a program as uint8 [H, W, 3] RGB.

    `image`: a path; a Pillow image; an array or torch tensor as `dovit.runtime.arrays.array_as_rgb` takes it. `format` and
    `layout` say how an array lies in memory; paths and Pillow images know. Raises UsageError for anything else, DovitError
    for a file that cannot be read.
    """
    check_layout(format, layout)
    known = isinstance(image, str | Path | Image.Image)
    if known and (format, layout) != ("rgb", "hwc"):
        wrong = f"format={format!r}" if format != "rgb" else f"layout={layout!r}"
        raise UsageError(
            f"{wrong} is for arrays: files and Pillow images say themselves how they are stored; leave it out"
        )
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UsageError(f"the Pillow image has {image.width}×{image.height} pixels; pass one with some")
        try:
            return _rgb(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow reads the pixels only now, and each of its decoders raises what it likes
            raise UsageError(f"the Pillow image cannot be read ({_reason(error)}); pass a whole one") from None
    return array_as_rgb(image, format, layout)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or clipped(" ".join(str(error).split())) or type(error).__name__


def _rgb(image: Image.Image) -> np.ndarray:
    with suppress(Exception):  # EXIF data that cannot be understood turn nothing
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel (`I` is how Pillow opens some of them): keep the upper 8
        values = np.asarray(image).astype(np.int64)
        grey = (values.clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
