"""Draw procedural street scenes into a folder of image and label pairs, as `--data folder:` reads them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from dovit.evaluation.data.streets import Streets


def main() -> None:
    """FOLDER/images and FOLDER/labels, and the classes' names and colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first scene's seed")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.first < 0 or min(arguments.size) < 32 or max(arguments.size) > 8192:
        parser.error("give --count 1 or more, --first 0 or more, and a --size from 32 to 8192 pixels")
    try:
        draw(arguments)
    except OSError as error:
        parser.exit(
            1, f"draw_streets.py: error: {error.filename or arguments.folder} cannot be written: {error.strerror}\n"
        )


def draw(arguments: argparse.Namespace) -> None:
    """Write the pairs and classes.json."""
    streets = Streets(arguments.count, tuple(arguments.size), arguments.first)
    for part in ("images", "labels"):
        (arguments.folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(len(streets)):
        sample, name = streets[number], f"{arguments.first + number:07d}.png"
        Image.fromarray(sample.image).save(arguments.folder / "images" / name)
        Image.fromarray(sample.labels).save(arguments.folder / "labels" / name)
    classes = {"names": streets.class_names, "colours": streets.palette}
    (arguments.folder / "classes.json").write_text(json.dumps(classes))


if __name__ == "__main__":
    main()
