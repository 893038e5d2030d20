"""Class names and colours: those of Cityscapes and ADE20K, a user's own, or generated ones."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dovit.runtime.errors import DovitError, UsageError, printable
from dovit.runtime.files import parse_json, read_text

LONGEST_NAME = 200  # characters
BUILT_IN = ("cityscapes", "ade20k")
Colour = tuple[int, int, int]


def palette_for(spec: str, classes: int) -> tuple[tuple[str, ...] | None, tuple[Colour, ...]]:
    """(names or None, colours) of `classes` classes: `cityscapes`, `ade20k`, or a JSON file
    `{"names": […], "colours": [[r, g, b], …]}` in which `names` may be left out.

    Raises UsageError for an unknown palette or another number of classes, DovitError for a file that cannot be used.
    """
    if spec in BUILT_IN:
        text = (files("dovit.runtime.palettes") / f"{spec}.json").read_text(encoding="utf-8")
    else:
        try:
            text = read_text(Path(spec))
        except FileNotFoundError:
            raise UsageError(f"palette {spec}: neither {' nor '.join(BUILT_IN)}, nor a file") from None
        except (OSError, ValueError) as error:
            raise DovitError(f"palette {spec}: cannot be read ({error})") from None
    try:
        content = parse_json(text)
        colours = tuple((int(r), int(g), int(b)) for r, g, b in content["colours"])
        names = tuple(str(name) for name in content["names"]) if content.get("names") else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DovitError(
            f'palette {spec}: expected JSON as {{"names": ["road"], "colours": [[128, 64, 128]]}}'
        ) from None
    if any(not 0 <= value <= 255 for colour in colours for value in colour):
        raise DovitError(f"palette {spec}: colours are red, green and blue from 0 to 255")
    wrong = next((name for name in names or () if printable(name) != name or len(name) > LONGEST_NAME), None)
    if wrong is not None:
        raise DovitError(f"palette {spec}: the class name {wrong[:40]} has control characters, or is too long")
    if names is not None and len(names) != len(colours):
        raise DovitError(f"palette {spec} has {len(names)} names for {len(colours)} colours; give one each")
    if len(colours) != classes:
        raise UsageError(f"palette {spec} has {len(colours)} classes, the model has {classes}")
    return names, colours


def default_palette(classes: int) -> tuple[Colour, ...]:
    """Distinct colours by PASCAL VOC's rule: the bits of the class number, spread over the channels."""
    colours = []
    for label in range(classes):
        rest, colour = label + 1, [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << (7 - bit)
            rest >>= 3
        colours.append((colour[0], colour[1], colour[2]))
    return tuple(colours)
