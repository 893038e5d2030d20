"""Reads an image and its label file, and checks that their sizes match and every label is in range."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dovit.evaluation.data.dataset import IGNORE, Sample
from dovit.runtime.errors import DovitError
from dovit.runtime.files import check_regular
from dovit.runtime.images import read_image

SCALED = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey values of 2 and 4 bits by, to spread them over 0…255


def read_pair(image: Path, labels: Path, ids: int | None, table: np.ndarray | None = None) -> Sample:
    """The image file `image` with the label file `labels`, as a Sample named by the image's path.

    The label file may have the values 0…ids-1 and 255 (any where `ids` is None). `table` (uint8 [256]) then says which
    class each value becomes. Raises DovitError, naming the file, for one that is missing or damaged, for two sizes, and
    for a value out of range.
    """
    pixels, values = read_image(image), read_labels(labels)
    if pixels.shape[:2] != values.shape:
        sizes = "{}×{} pixels, its image {}×{}".format(*reversed(values.shape), *reversed(pixels.shape[:2]))
        raise DovitError(f"{labels}: the labels have {sizes} ({image}); make them the same size")
    if ids is not None:
        wrong = (values >= ids) & (values != IGNORE)
        if wrong.any():
            raise DovitError(
                f"{labels}: label value {values[wrong][0]} is neither below {ids} nor {IGNORE} (ignored); "
                "correct the file, or the number of classes"
            )
    return Sample(str(image), pixels, values if table is None else table[values])


def read_labels(path: Path) -> np.ndarray:
    """The label file `path` as uint8 [H, W], its values as they are stored (a palette image's are its indices).

    Raises DovitError where the file is missing, damaged, or not of one channel of at most 8 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of metadata that we do not use
            check_regular(path.stat(), path)  # opening a pipe would wait for a writer
            with Image.open(path) as image:
                if image.mode not in ("1", "L", "P"):
                    raise DovitError(
                        f"{path}: labels of mode {image.mode}, not of one 8-bit channel; save class ids, not colours"
                    )
                raw = image.tile[0][3] if image.mode == "L" and image.tile else None  # gone once the pixels are loaded
                values = np.array(image).astype(np.uint8)
    except FileNotFoundError:
        raise DovitError(f"{path}: no such label file; check the path") from None
    except PermissionError:
        raise DovitError(f"{path}: may not be read; check its permissions") from None
    except UnidentifiedImageError:
        raise DovitError(f"{path}: the labels are no image that Pillow can read; save them as PNG") from None
    except (DovitError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder makes of a damaged file: each of Pillow's plugins has its own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DovitError(f"{path}: the labels are damaged or cannot be read ({reason}); get a whole copy") from None
    return values // SCALED[raw] if isinstance(raw, str) and raw in SCALED else values
