"""The paper's Figure 6 from the records of camvid.sh, as a plot and a table: `python -m dovit.benchmarks.camvid_figures OUT`.

Tokens and MACs of each part of the backbone between two decisions, for the image with the fewest MACs, the one with the most and
on average, and how many tokens the images keep. Draws OUT/blocks.svg.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dovit.evaluation.cli.outputs import json_text
from dovit.runtime.cli.app import run_command
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import atomic_write

DENSE = "ξ = 1"
QUANTILES = {"fewest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "most": 1.0}


@dataclass(frozen=True)
class Images:
    """What every image costs at one ξ. The parts are the layers up to each decision and those behind the last."""

    names: tuple[str, ...]
    tokens: np.ndarray  # [images, D+1]: tokens that each part runs on, those of the image in the first
    macs: np.ndarray  # [images, D+2], the paper's count; the last are the decoder's
    accuracy: np.ndarray  # [images]: share of the pixels that are right, in percent; NaN where none is labelled
    dense: np.ndarray  # [D+2]: MACs at ξ = 1

    @property
    def easy(self) -> int:
        """The image with the fewest MACs."""
        return int(self.macs.sum(axis=1).argmin())

    @property
    def hard(self) -> int:
        """The image with the most."""
        return int(self.macs.sum(axis=1).argmax())


def records_of(folder: Path, seed: int | None) -> Path:
    """DoViT's records: those of `seed`, or the first. Raises DovitError where there are none."""
    named = ((re.fullmatch(r"images-(\d+)", file.stem), file) for file in folder.glob("images-*.jsonl"))
    found = {int(name[1]): file for name, file in named if name}  # images-tuned-0.jsonl is another model's
    if not found or (seed is not None and seed not in found):
        name = f"images-{'NUMBER' if seed is None else seed}.jsonl"
        raise DovitError(f"{folder} holds no {name} of dovit-eval --per-image: run benchmarks/camvid.sh first")
    return found[min(found) if seed is None else seed]


def read_images(file: Path, setting: str) -> Images:
    """Of dovit-eval's --per-image `file`, whose sweep has `setting` and ξ = 1. Raises DovitError where it has not."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if not records:
        raise DovitError(f"{file} has no images: run benchmarks/camvid.sh again")
    found = [{one["name"]: one for one in record["settings"]} for record in records]
    for name in (setting, DENSE):
        if name not in found[0]:
            raise DovitError(f"{file} has no {name!r}: its sweep has {', '.join(found[0])}")
    rows = [one[setting] for one in found]
    return Images(
        tuple(Path(record["name"]).stem for record in records),
        np.array([row["tokens"] for row in rows]),
        np.array([row["macs_paper"] for row in rows]),
        np.array([row["PA"] for row in rows], float),
        np.array(found[0][DENSE]["macs_paper"]),
    )


def blocks_table(images: Images) -> list[str]:
    """Tokens and GMACs by part: an easy image, a hard one, the mean, and the dense model."""
    parts = images.tokens.shape[1]
    lines = [
        f"| tokens (GMACs) of the layers, by decision | {' | '.join(_parts(parts))} | MACs, paper | PA |",
        "| --- |" + " --- |" * (parts + 2),
    ]
    every = images.tokens[:1, 0].repeat(parts)
    rows: list[tuple[str, np.ndarray, np.ndarray, str]] = [
        (f"easiest, {images.names[images.easy]}", *_of(images, images.easy)),
        ("mean", images.tokens.mean(axis=0), images.macs.mean(axis=0), f"{np.nanmean(images.accuracy):.1f}"),
        (f"hardest, {images.names[images.hard]}", *_of(images, images.hard)),
        ("without token pass", every, images.dense, ""),
    ]
    for name, tokens, macs, accuracy in rows:
        cells = [f"{count:.0f} ({part / 1e9:.2f})" for count, part in zip(tokens, macs[:-1], strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} | {100 * macs.sum() / images.dense.sum():.0f} % | {accuracy} |")
    return lines


def kept_table(images: Images) -> list[str]:
    """How many tokens the images keep after each decision, and what share of the MACs is left."""
    kept, share = images.tokens[:, 1:], 100 * images.macs.sum(axis=1) / images.dense.sum()
    lines = [
        f"| over {len(images.names)} images | " + " | ".join(QUANTILES) + " |",
        "| --- |" + " --- |" * len(QUANTILES),
    ]
    for number in range(kept.shape[1]):
        cells = [f"{np.quantile(kept[:, number], share):.0f}" for share in QUANTILES.values()]
        lines.append(f"| kept after decision {number + 1} | {' | '.join(cells)} |")
    cells = [f"{np.quantile(share, quantile):.0f} %" for quantile in QUANTILES.values()]
    return [*lines, f"| MACs, paper | {' | '.join(cells)} |"]


def as_json(images: Images, setting: str) -> dict[str, Any]:
    """What the plot shows: the two images, and all kept counts."""

    def one(number: int) -> dict[str, Any]:
        tokens, macs = images.tokens[number].tolist(), images.macs[number].tolist()
        return {
            "name": images.names[number],
            "tokens": tokens,
            "macs_paper": macs,
            "PA": images.accuracy[number].item(),
        }

    return {
        "setting": setting,
        "easiest": one(images.easy),
        "hardest": one(images.hard),
        "dense_macs_paper": images.dense.tolist(),
        "kept": images.tokens[:, 1:].tolist(),
    }


def draw(images: Images, setting: str, path: Path) -> None:
    """Tokens by part, MACs by part, and a histogram of the kept tokens, into an image file."""
    from matplotlib.figure import Figure

    parts = images.tokens.shape[1]
    places = np.arange(parts)
    figure = Figure(figsize=(14, 4), layout="constrained")
    figure.suptitle(f"{len(images.names)} images, {setting}")
    left, middle, right = figure.subplots(1, 3)
    groups: list[tuple[str, np.ndarray, np.ndarray, str]] = [
        ("easiest image", images.tokens[images.easy], images.macs[images.easy], "tab:green"),
        ("mean", images.tokens.mean(axis=0), images.macs.mean(axis=0), "tab:blue"),
        ("hardest image", images.tokens[images.hard], images.macs[images.hard], "tab:red"),
        ("without token pass", images.tokens[:1, 0].repeat(parts), images.dense, "grey"),
    ]
    for number, (name, tokens, macs, colour) in enumerate(groups):
        left.plot(places, tokens, "o-", color=colour, label=name)
        middle.bar(places + 0.2 * (number - 1.5), macs[:-1] / 1e9, 0.2, color=colour, label=name)
    left.set_ylabel("tokens")
    left.set_ylim(0)
    middle.set_ylabel("GMACs (paper's count)")
    for axes in (left, middle):
        axes.set_xticks(list(places), _parts(parts))
        axes.set_xlabel("layers, by decision")
    left.legend()  # for both
    bins = np.linspace(0, images.tokens[0, 0], 33)
    for number in range(1, parts):
        right.hist(images.tokens[:, number], bins.tolist(), alpha=0.6, label=f"after {number}")
    right.set_xlabel("tokens kept, by decision")
    right.set_ylabel("images")
    right.legend(loc="upper left")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix[1:])


def _of(images: Images, number: int) -> tuple[np.ndarray, np.ndarray, str]:
    return images.tokens[number], images.macs[number], f"{images.accuracy[number]:.1f}"


def _parts(count: int) -> Sequence[str]:
    """What the parts of the backbone are called, by the decisions between them."""
    return ["before 1", *(f"after {number}" for number in range(1, count))]


def command(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="camvid.sh's folder.")],
    seed: Annotated[int | None, typer.Option(help="Which of DoViT's runs. Default: the first.")] = None,
    threshold: Annotated[float, typer.Option(metavar="ξ", help="One of the sweep's.")] = 0.95,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what is drawn there.")] = None,
) -> None:
    """Draw Figure 6 and print its tables as Markdown."""
    file = records_of(folder, seed)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("the plot needs matplotlib: pip install 'dovit[training]'") from None
    setting = f"ξ = {threshold:g}"
    images = read_images(file, setting)
    draw(images, setting, folder / "blocks.svg")
    if out is not None:
        out.write_text(json_text(as_json(images, setting)) + "\n", encoding="utf-8")
    for lines in (blocks_table(images), kept_table(images)):
        print("\n".join(lines), end="\n\n")


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.camvid_figures")


if __name__ == "__main__":
    main()
