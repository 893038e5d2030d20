"""Opens the data set that an option names: a folder, LAYOUT:FOLDER, or streets:COUNT."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from dovit.evaluation.data.ade20k import INSIDE, SPLITS, ade20k
from dovit.evaluation.data.cityscapes import cityscapes
from dovit.evaluation.data.dataset import Dataset
from dovit.evaluation.data.folder import folder
from dovit.runtime.errors import UsageError

LAYOUTS = ("cityscapes", "ade20k", "folder")
EXPECTED = (
    "expected leftImg8bit/ and gtFine/ (Cityscapes), images/training/ and annotations/training/ (ADE20K), "
    "or images/ and labels/ (a folder of pairs)"
)
# images and labels of each layout, the most particular first
FOLDERS = (
    ("cityscapes", ("leftImg8bit", "gtFine")),
    ("ade20k", (INSIDE,)),
    *(("ade20k", (f"images/{split}", f"annotations/{split}")) for split in SPLITS.values()),
    ("folder", ("images", "labels")),
)
STREETS = {
    "train": (2000, 0),
    "val": (200, 1_000_000),
}  # count, first scene: what the two have by default never overlaps
MOST_SCENES = 1_000_000_000


def open_data(
    spec: str,
    split: Literal["train", "val"],
    *,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    reduce_zero_label: bool | None = None,
) -> Dataset:
    """The data set that `spec` names: a folder of a known layout, `cityscapes:FOLDER`, `ade20k:FOLDER`,
    `folder:FOLDER`, or `streets`, `streets:COUNT`, `streets:COUNT@FIRST` (procedural; a folder is `./streets`).

    `size` is the scenes' (height, width), which no other layout has a use for. `classes` says how many classes a folder
    has that does not say so itself. `reduce_zero_label` says whether label 0 means none; None is the layout's own rule
    (ADE20K: yes, the others: no). Raises UsageError for an invalid name, DovitError for files that are missing.
    """
    if split not in SPLITS:
        raise UsageError(f"split {split}: there are train and val")
    layout, colon, rest = spec.partition(":")
    data: Dataset
    if layout == "streets" and (colon == "" or rest):
        if reduce_zero_label:
            raise UsageError(f"{spec}: label 0 is a class of the streets; leave reduce_zero_label out")
        data = _streets(rest, split, size)
    else:
        data = _files(spec, split, classes, reduce_zero_label)
    if classes is not None and data.classes is not None and data.classes != classes:
        raise UsageError(
            f"{spec}: the data set has {data.classes} classes, not {classes}; give one that fits the model"
        )
    return data


def _files(spec: str, split: Literal["train", "val"], classes: int | None, reduce_zero_label: bool | None) -> Dataset:
    layout, colon, rest = spec.partition(":")
    named = bool(colon) and layout in LAYOUTS
    if not (folder_name := rest if named else spec):
        raise UsageError(f"no folder is named (an empty variable?); name a data set's: {EXPECTED}")
    root = Path(folder_name)
    with suppress(RuntimeError):  # ~somebody: then it is the folder's name
        root = root.expanduser()
    try:
        found = root.is_dir()
    except OSError as error:  # a name that no folder can have
        raise UsageError(f"{root}: {error.strerror}; name a data set's folder: {EXPECTED}") from None
    if not found:
        what = "a file, not a folder" if root.exists() else "no such folder"
        raise UsageError(f"{root}: {what}; name a data set's: {EXPECTED}")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UsageError(f"{root}: may not be read; check its permissions")
    if not named:
        layout = _recognise(root)
    if layout == "cityscapes":
        if reduce_zero_label:
            raise UsageError(f"{spec}: label 0 is a class in Cityscapes; leave reduce_zero_label out")
        return cityscapes(root, split)
    if layout == "ade20k":
        return ade20k(root, split, reduce_zero_label is not False)
    return folder(root, split, classes, bool(reduce_zero_label))


def _recognise(root: Path) -> str:
    incomplete = None
    for layout, folders in FOLDERS:
        missing = [name for name in folders if not (root / name).is_dir()]
        if not missing:
            return layout
        if incomplete is None and len(missing) < len(folders):
            incomplete = f"{missing[0]}/ is missing beside {next(name for name in folders if name not in missing)}/"
    incomplete = incomplete or "not a data set's folder"
    raise UsageError(f"{root}: {incomplete}; {EXPECTED}")


def _streets(text: str, split: Literal["train", "val"], size: tuple[int, int] | None) -> Dataset:
    count, first = STREETS[split]
    given, at, start = text.partition("@")
    try:
        count = int(given) if text else count
        first = int(start) if at else first
    except ValueError:
        count = 0
    if not 1 <= count <= MOST_SCENES or first < 0:
        raise UsageError(f"streets:{text}: expected streets:COUNT or streets:COUNT@FIRST, as streets:2000@0")
    if split == "train" and not at and count > STREETS["val"][1]:
        raise UsageError(
            f"streets:{text}: more than {STREETS['val'][1]} reach the val scenes; say @FIRST for both splits"
        )
    if size is None:
        raise UsageError("streets: scenes are drawn at the model's image size; give one as size")
    from dovit.evaluation.data.streets import Streets  # here: files need nothing of it

    return Streets(count, size, first=first)
