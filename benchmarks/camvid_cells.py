"""What becomes of stopped tokens in a frozen model: left out, merged into the class token, or merged by cell.

`python -m dovit.benchmarks.camvid_cells DATA CHECKPOINT` with a folder of labelled images (images/train, images/val, labels/val)
and a segmenter of 12 layers whose decoder classifies tokens one by one. Lenses are fitted to training images without token pass,
once for all rows, and decisions are made by the decoder's own classifier: rows differ in what happens to stopped tokens, in where
decisions are and in ξ, not in what was fitted. `dovit-adapt` fits heads and corrections too, behind the decisions before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast

import torch
import typer

from dovit.evaluation.cli.options import limit_option, sample_evenly
from dovit.evaluation.data import Dataset
from dovit.evaluation.data.open import open_data
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.segmenter import Setting, join_thresholds
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from dovit.export.model.config import SegmenterLinearDecoder
from dovit.export.model.heads import DecisionHead
from dovit.export.model.lens import Lens
from dovit.export.model.token_pass import TokenState
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.output import new_table, output_console, print_table, stage_progress
from dovit.runtime.errors import UsageError
from dovit.runtime.files import atomic_write, check_output
from dovit.runtime.progress import Progress
from dovit.training.adapt.features import check_space_of_features, compute_features
from dovit.training.adapt.fit import distil, fit_lens, tokens_through
from dovit.training.adapt.images import Files, Images
from dovit.training.adapt.run import Adaptation, adapted_config
from dovit.training.adapt.states import States
from dovit.training.cli.options import seed_option
from dovit.training.torch_segmenter import TorchSegmenter

DEPTH = 12  # layers that ROWS are for
LR = 3e-4  # of distillation, as dovit-adapt's
PAPER, EARLY = (3, 6, 9), (2, 4, 6, 8)
LEFT_OUT, CLASS_TOKEN = 0, -1


@dataclass(frozen=True)
class Row:
    """Decisions after `layers`, counted from 1, at `thresholds`. `cells`: side in patches, or LEFT_OUT, or CLASS_TOKEN."""

    layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    cells: int

    @property
    def merging(self) -> str:
        """What becomes of stopped tokens."""
        others = {LEFT_OUT: "left out", CLASS_TOKEN: "into the class token"}
        return others.get(self.cells, f"cells of {self.cells}×{self.cells}")


@dataclass(frozen=True)
class Measured:
    """In percent, but `kept`, means over the images; MACs are shares of the dense model's."""

    mean_iou: float
    pixel_accuracy: float
    kept: tuple[float, ...]
    macs_paper: float
    macs_true: float


ROWS = (
    *(Row(PAPER, (0.98,) * 3, cells) for cells in (LEFT_OUT, CLASS_TOKEN, 4, 2)),
    *(Row(PAPER, (0.95,) * 3, cells) for cells in (LEFT_OUT, 8, 6, 4, 2)),
    Row(EARLY, (0.95,) * 4, LEFT_OUT),
    Row(EARLY, (0.95,) * 4, 4),
    Row(EARLY, (0.95, 0.97, 0.98, 0.98), 4),
    Row(EARLY, (0.98, 0.97, 0.95, 0.93), 4),
    Row((2, 4, 6), (0.9, 0.95, 0.97), 4),
    Row((2, 3, 5), (0.9, 0.95, 0.97), 4),
)


def fit_lenses(
    dense: DoViT, images: Images, folder: Path, *, steps: int, seed: int, progress: Progress
) -> dict[int, Lens]:
    """By layer: a lens from the tokens after it to those after the last layer, both without token pass. Features of `images` lie
    in `folder` meanwhile. Raises DovitError."""
    layers = tuple(sorted({layer for row in ROWS for layer in row.layers}))
    config = adapted_config(dense.config, Adaptation(layers, (1.0,) * len(layers), correct=False))
    check_space_of_features(config, images, folder)
    model = DoViT(config).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    last, prefix, every = config.backbone.depth, config.prefix, range(len(images))
    generator = torch.Generator().manual_seed(seed)
    features = compute_features(model, images, folder, progress)
    states, lenses = States(folder), [cast(Lens, lens) for lens in model.lenses]
    for layer, lens in zip(layers, lenses, strict=True):
        for image in every:
            patches = features.take(layer, [image])  # [1, N, E]
            states.put(image, TokenState.start(torch.nn.functional.pad(patches, (0, 0, prefix, 0)), prefix))
        fit_lens(lens, states, features, last, every, prefix)

        def report(done: int, layer: int = layer) -> None:
            progress(f"lens after layer {layer}: distilling", done / steps)

        lens.requires_grad_(True)
        distil(
            model,
            tokens_through(lens, prefix),
            list(lens.parameters()),
            states,
            features,
            every,
            steps=steps,
            lr=LR,
            generator=generator,
            progress=report,
        )
        lens.requires_grad_(False)
    return dict(zip(layers, lenses, strict=True))


def with_decisions(dense: DoViT, row: Row, lenses: dict[int, Lens]) -> DoViT:
    """`dense` with the row's decisions, whose heads are the decoder's norm and classifier behind the lenses."""
    merge, side = row.cells == CLASS_TOKEN, max(row.cells, 0)
    how = Adaptation(row.layers, row.thresholds, merge=merge, merge_cells=side, correct=False)
    model = DoViT(adapted_config(dense.config, how)).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    classifier = cast(torch.nn.Conv2d, dense.decoder.classify)
    for number, layer in enumerate(row.layers):
        head = cast(DecisionHead, model.heads[number])
        head.norm.load_state_dict(dense.backbone.norm.state_dict())
        head.classify.load_state_dict(classifier.state_dict())
        model.lenses[number].load_state_dict(lenses[layer].state_dict())
    return model


def measure(model: DoViT, dataset: Dataset, thresholds: tuple[float, ...], limit: int | None) -> Measured:
    """mIoU and cost of `model` on the first `limit` images, at their own size."""
    (outcome,) = evaluate(TorchSegmenter(model), dataset, [Setting.of(thresholds)], limit=limit)
    found, (paper, true) = outcome.confusion.summary(), outcome.macs_ratio
    return Measured(found["mIoU"], found["PA"], outcome.kept, 100 * paper, 100 * true)


def command(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A folder with images/train, images/val and labels/val.")
    ],
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A segmenter that dovit-export reads.")],
    images: Annotated[int, limit_option(" Lenses are fitted to them.")] = 120,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate at most so many images. Default: all.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of distillation for each lens.")] = 1000,
    seed: Annotated[int, seed_option("the order of images")] = 0,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The numbers as JSON as well.")] = None,
) -> None:
    """What becomes of stopped tokens in a frozen model: left out, merged into the class token, or merged by cell."""
    if out is not None:
        check_output(out, "--json")
    dense = load_model(checkpoint, ReadOptions(dense=True)).model.requires_grad_(False)
    config, decoder = dense.config, dense.config.decoder
    linear = isinstance(decoder, SegmenterLinearDecoder) and not (decoder.num_convs or decoder.concat or decoder.taps)
    if not linear or not config.backbone.final_norm or config.backbone.depth != DEPTH:
        raise UsageError(
            f"{checkpoint}: decisions are made by the decoder's own classifier here: give a model of {DEPTH} layers with a "
            f"segmenter-linear decoder without further convolutions"
        )
    dataset = open_data(f"folder:{data}", "val", classes=config.classes)
    files = sample_evenly([one.file for one in find_inputs([str(data / "images" / "train")])], images)
    reference = measure(dense, dataset, (), limit)
    rows: list[tuple[Row, Measured]] = []
    with stage_progress() as progress, TemporaryDirectory(prefix="dovit-cells-") as folder:
        lenses = fit_lenses(dense, Files(files), Path(folder), steps=steps, seed=seed, progress=progress)
        for number, row in enumerate(ROWS):
            progress(f"evaluating: {row.merging}", number / len(ROWS))
            rows.append((row, measure(with_decisions(dense, row, lenses), dataset, row.thresholds, limit)))
    table = new_table(
        "stopped tokens", "after layers", "ξ", "mIoU", "kept", "MACs,\npaper", "MACs,\ntrue", left=(0, 1, 2)
    )
    table.add_row("dense", "", "", f"{reference.mean_iou:.1f}", "all", "100 %", "100 %")
    for row, found in rows:
        table.add_row(
            row.merging,
            ", ".join(map(str, row.layers)),
            join_thresholds(row.thresholds),
            f"{found.mean_iou - reference.mean_iou:+.1f}",
            "/".join(f"{count:.0f}" for count in found.kept),
            f"{found.macs_paper:.0f} %",
            f"{found.macs_true:.0f} %",
        )
    print_table(output_console(), f"Lenses fitted to {len(files)} images", table)
    if out is not None:
        about = {"images": len(files), "limit": limit, "steps": steps, "seed": seed, "dense": asdict(reference)}
        content = about | {"rows": [{**asdict(row), "merging": row.merging, **asdict(found)} for row, found in rows]}
        with atomic_write(out) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Entry point."""
    run_command(command, "camvid_cells")


if __name__ == "__main__":
    main()
