"""One picture of what dovit-run wrote: the image, its labels, and the patches still kept after each decision."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import dovit
from dovit.runtime.images import read_image


def main() -> None:
    """Two columns of equal pictures, with a gap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("folder", type=Path, help="where dovit-run --overlay --keep-maps wrote")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    stem = arguments.image.stem
    keeps = sorted(arguments.folder.glob(f"{stem}.keep*.png"))
    labels, overlay = arguments.folder / f"{stem}.png", arguments.folder / f"{stem}.overlay.png"
    files = [arguments.image, *[labels] * (len(keeps) % 2), overlay, *keeps]  # an even number
    try:
        pictures = [read_image(file) for file in files]
    except dovit.DovitError as error:
        parser.exit(1, f"picture.py: error: {error}\n")
    height, width = pictures[0].shape[:2]
    gap, rows = 8, -(-len(pictures) // 2)
    sheet = np.full((rows * (height + gap) - gap, 2 * width + gap, 3), 128, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // 2 * (height + gap), number % 2 * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(arguments.out)
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        parser.exit(1, f"picture.py: error: {arguments.out} cannot be written: {error}\n")


if __name__ == "__main__":
    main()
