"""Cityscapes as it is downloaded: 34 label ids, of which 19 are classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from dovit.evaluation.data.dataset import IGNORE
from dovit.evaluation.data.pairs import NoImagesError, Pair, Pairs, match_pairs
from dovit.runtime.palettes import palette_for

IDS = 34  # and -1 (license plate), which a uint8 file holds as 255
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # the ids of classes 0…18
TABLE = np.full(256, IGNORE, np.uint8)
TABLE[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))

IMAGE, LABEL_IDS, LABEL_TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
SITE = "from www.cityscapes-dataset.com"


def cityscapes(root: Path, split: Literal["train", "val"]) -> Pairs:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png where there is one (as
    mmsegmentation converts them), else *_gtFine_labelIds.png.

    Raises DovitError for a split without images, an image without labels, and labels without an image.
    """
    image_folder, label_folder = root / "leftImg8bit" / split, root / "gtFine" / split
    images = _by_key(image_folder, IMAGE)
    if not images:
        raise NoImagesError(
            f"{image_folder}: no images CITY/*{IMAGE}; unpack leftImg8bit_trainvaltest.zip {SITE} in {root}"
        )
    ids, train_ids = _by_key(label_folder, LABEL_IDS), _by_key(label_folder, LABEL_TRAIN_IDS)
    found = match_pairs(
        images,
        ids | train_ids,
        lambda key: label_folder / f"{key}{LABEL_IDS}",
        f"unpack gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip {SITE} in {root}",
    )
    names, palette = palette_for("cityscapes", len(TRAIN_IDS))
    pairs = (
        Pair(image, labels, len(TRAIN_IDS))
        if labels.name.endswith(LABEL_TRAIN_IDS)
        else Pair(image, labels, IDS, TABLE)
        for image, labels in found
    )
    return Pairs(pairs, len(TRAIN_IDS), names, palette)


def _by_key(folder: Path, ending: str) -> dict[str, Path]:
    """CITY/NAME without the ending → file."""
    files = (path for path in folder.glob(f"*/*{ending}") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in files}
