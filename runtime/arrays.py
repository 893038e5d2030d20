"""Converts images given as numpy arrays or torch tensors to uint8 RGB."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from dovit.runtime.arguments import is_one_of, shown
from dovit.runtime.errors import UsageError

Format = Literal["rgb", "rgba", "bgr", "bgra", "gray"]
Layout = Literal["hwc", "chw"]

CHANNELS = {"rgb": 3, "rgba": 4, "bgr": 3, "bgra": 4, "gray": 1}


def check_layout(format: str, layout: str) -> None:
    """Raises UsageError for names that are unknown."""
    if not is_one_of(format, get_args(Format)):
        raise UsageError(f"unknown format {shown(format)}: choose one of {', '.join(get_args(Format))}")
    if not is_one_of(layout, get_args(Layout)):
        raise UsageError(f"unknown layout {shown(layout)}: choose hwc or chw")


def array_as_rgb(image: Any, format: Format = "rgb", layout: Layout = "hwc") -> np.ndarray:
    """A numpy array or torch tensor as uint8 [H, W, 3] RGB; a uint8 RGB array is returned as it is, not copied.

    `format`: the channels' order, `gray` for one, whose array may be [H, W]; alpha is dropped. `layout`: `hwc` for
    [H, W, C], `chw` for [C, H, W], as most torch tensors lie. Values are uint8, or float within 0…1, which are rounded to
    256 levels. Nothing is guessed from values or sizes. Raises UsageError for anything else, and says what to do.
    """
    if type(image).__module__.partition(".")[0] == "torch":
        image = _from_torch(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"{_EXPECTED}, not {type(image).__name__}{_HINTS.get(type(image).__name__, '')}")
    pixels = _as_uint8(_channels_last(image, format, layout))
    if format == "gray":
        return np.repeat(pixels, 3, axis=2)
    if format == "rgb":
        return pixels
    return np.ascontiguousarray(pixels[..., :3] if format == "rgba" else pixels[..., 2::-1])


_EXPECTED = "an image is a path, a Pillow image, an array or a torch tensor"
_HINTS = {
    "list": "; for several images call session.batch(images), nested numbers go through np.array first",
    "tuple": "; for several images call session.batch(images), nested numbers go through np.array first",
    "bytes": "; open encoded ones with PIL.Image.open(io.BytesIO(data))",
    "BytesIO": "; open it with PIL.Image.open(file)",
}


def _from_torch(tensor: Any) -> Any:
    try:
        return tensor.detach().cpu().numpy()
    except (AttributeError, TypeError, RuntimeError) as error:  # bfloat16, sparse, quantised, no tensor at all
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"the tensor cannot be read ({reason}): pass a dense one of uint8 or float32") from None


def _channels_last(image: np.ndarray, format: Format, layout: Layout) -> np.ndarray:
    """[H, W, C], C as the format has it."""
    channels, wanted = CHANNELS[format], "[H, W, C]" if layout == "hwc" else "[C, H, W]"
    found = f"{image.dtype} {list(image.shape)}"
    if image.ndim == 2 and format == "gray":
        image, layout = image[..., None], "hwc"
    if image.ndim == 4:
        raise UsageError(f"one image is {wanted}, not {found}: call session.batch(list(images)) for several")
    if image.ndim == 2:
        raise UsageError(f'an image of format {format} is {wanted}, not {found}: for a grey one say format="gray"')
    if image.ndim != 3 or 0 in image.shape:
        raise UsageError(f"an image of format {format} is {wanted} with some pixels, not {found}")
    if image.shape[2 if layout == "hwc" else 0] != channels:
        raise UsageError(
            f"an image of format {format} is {wanted.replace('C', str(channels))}, not {found}{_hint(image, layout, channels)}"
        )
    return image if layout == "hwc" else image.transpose(1, 2, 0)


def _hint(image: np.ndarray, layout: Layout, channels: int) -> str:
    first, last = image.shape[0], image.shape[2]
    if layout == "hwc" and first == channels:
        return ': say layout="chw" if the channels come first'
    if layout == "chw" and last == channels:
        return ': leave layout="chw" out if the channels come last'
    names = {1: ("gray",), 3: ("rgb", "bgr"), 4: ("rgba", "bgra")}.get(last if layout == "hwc" else first)
    return ": say format=" + " or ".join(f'"{name}"' for name in names) if names else ""


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise UsageError(
            f"an image has uint8 values, or float ones within 0…1, not {image.dtype}: convert it, "
            "as image.astype(np.uint8) where its values lie within 0…255"
        )
    least, most = float(image.min()), float(image.max())
    if not np.isfinite([least, most]).all():
        raise UsageError(
            "a float image has values within 0…1, this one NaN or infinite ones: look for where they come from"
        )
    if least < 0 or most > 1:
        raise UsageError(
            f"a float image has values within 0…1, this one {least:g}…{most:g}: divide by 255 or undo a normalisation, "
            "or convert it to uint8"
        )
    return np.rint(image * 255).astype(np.uint8)
