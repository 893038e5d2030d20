"""Any folder with images and labels of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dovit.evaluation.data.pairs import REDUCE_ZERO, NoImagesError, Pair, Pairs, list_files, match_pairs
from dovit.runtime.errors import DovitError
from dovit.runtime.files import parse_json, read_text
from dovit.runtime.palettes import Colour, palette_for

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LABELS = (".png",)


def folder(
    root: Path, split: Literal["train", "val"], classes: int | None = None, reduce_zero_label: bool = False
) -> Pairs:
    """images/SPLIT/NAME.* with labels/SPLIT/NAME.png; or images/NAME.* with labels/NAME.png, the same for both splits.

    `classes.json` in `root`, in the palettes' format, gives names, colours and the number of classes; without it
    `classes` does, and where neither does no label is out of range. `reduce_zero_label`: label 0 becomes ignored and
    the others move down by one. Raises DovitError for a split without images, an image without labels, labels without
    an image, and a damaged `classes.json`.
    """
    below = split if any((root / "images" / name).is_dir() for name in ("train", "val")) else ""
    image_folder, label_folder = root / "images" / below, root / "labels" / below
    images = _by_stem(image_folder, IMAGES)
    if not images:
        raise NoImagesError(f"{image_folder}: no images in it; put some there, as PNG, JPEG, WebP, BMP or TIFF")
    found = match_pairs(
        images,
        _by_stem(label_folder, LABELS),
        lambda stem: label_folder / f"{stem}.png",
        f"each image in {image_folder} needs labels of the same name in {label_folder}, and the reverse",
    )
    count, names, palette = _classes(root / "classes.json")
    classes = count or classes
    ids = classes if classes is None or not reduce_zero_label else classes + 1
    table = REDUCE_ZERO if reduce_zero_label else None
    return Pairs((Pair(image, label, ids, table) for image, label in found), classes, names, palette)


def _by_stem(inside: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in list_files(inside, suffixes):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise DovitError(f"{path}: {other.name} has the same name, and labels go by name; rename or remove one")
    return by_stem


def _classes(path: Path) -> tuple[int | None, tuple[str, ...] | None, tuple[Colour, ...] | None]:
    if not path.exists():
        return None, None, None
    try:
        count = len(parse_json(read_text(path))["colours"])
    except (OSError, ValueError, KeyError, TypeError):
        count = 0  # palette_for raises the error
    names, colours = palette_for(str(path), count)
    if not colours:
        raise DovitError(f"{path}: no classes in it; give a name and a colour for each")
    return len(colours), names, colours
