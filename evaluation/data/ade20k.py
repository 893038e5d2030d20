"""ADE20K's scene parsing benchmark (ADEChallengeData2016): 150 classes, stored as 1…150 with 0 for none."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dovit.evaluation.data.pairs import REDUCE_ZERO, NoImagesError, Pair, Pairs, list_files, match_pairs
from dovit.runtime.palettes import palette_for

CLASSES = 150
INSIDE = "ADEChallengeData2016"  # the folder that the archive unpacks to
SPLITS = {"train": "training", "val": "validation"}
ARCHIVE = "ADEChallengeData2016.zip from data.csail.mit.edu/places/ADEchallenge"


def ade20k(root: Path, split: Literal["train", "val"], reduce_zero_label: bool = True) -> Pairs:
    """images/{training,validation}/*.jpg with annotations/{training,validation}/*.png, in `root` or in its
    ADEChallengeData2016.

    `reduce_zero_label=False` is for annotations that were converted to 0…149 and 255 before. Raises DovitError for a
    split without images, an image without labels, and labels without an image.
    """
    if (root / INSIDE).is_dir():
        root = root / INSIDE
    image_folder, label_folder = root / "images" / SPLITS[split], root / "annotations" / SPLITS[split]
    images = {path.stem: path for path in list_files(image_folder, [".jpg"])}
    if not images:
        raise NoImagesError(f"{image_folder}: no images *.jpg; unpack {ARCHIVE} and name the folder that it makes")
    labels = {path.stem: path for path in list_files(label_folder, [".png"])}
    found = match_pairs(images, labels, lambda key: label_folder / f"{key}.png", f"unpack the whole of {ARCHIVE} again")
    names, palette = palette_for("ade20k", CLASSES)
    ids, table = (CLASSES + 1, REDUCE_ZERO) if reduce_zero_label else (CLASSES, None)
    return Pairs((Pair(image, label, ids, table) for image, label in found), CLASSES, names, palette)
