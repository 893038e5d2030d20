"""Which tokens stop wrongly: counts against a loop over patches, and the command's table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from models import random_images, randomised, small_config
from PIL import Image
from typer.testing import CliRunner

from dovit.evaluation.stopped import FARTHEST, StoppedTokens, distance_from_edge, patch_labels
from dovit.export.checkpoints import save_model
from dovit.runtime.loading import load
from dovit.runtime.result import Result

GRID = (5, 7)


def blobs(seed: int, size: tuple[int, int], classes: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, classes, (4, 5)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.NEAREST))


def result(labels: np.ndarray, keep_maps: np.ndarray, filled: tuple[int, int] | None = None) -> Result:
    kept = tuple(int(one.sum()) for one in keep_maps)
    confidence = np.zeros(keep_maps.shape, np.float32)
    return Result(labels=labels, kept=kept, tokens=35, keep_maps=keep_maps, confidence_maps=confidence, filled=filled)


def test_labels_of_patches_are_the_most_frequent_ones() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (50, 70)).astype(np.uint8)
    found = patch_labels(labels, (50, 70), 10, 3)
    for y in range(5):
        for x in range(7):
            counts = Counter(labels[10 * y : 10 * y + 10, 10 * x : 10 * x + 10].ravel().tolist())
            assert counts[int(found[y, x])] == max(counts.values())
    assert (patch_labels(blobs(1, (4, 5)), (4, 5), 1, 3) == blobs(1, (4, 5))).all()
    assert patch_labels(blobs(2, (37, 53)), (40, 56), 8, 3).shape == GRID  # patches of sizes that differ
    few = blobs(3, (2, 3))  # an image much smaller than the input: each patch has the label at its place
    assert (patch_labels(few, (40, 60), 10, 3) == few.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("filled", [(50, 41), (33, 70), (7, 3)])
@pytest.mark.parametrize("scale", [0.4, 1, 2.5])
def test_padding_has_no_labels(filled: tuple[int, int], scale: float) -> None:
    """Patches that the image reaches have the labels that lie there; those of padding do not count, kept or stopped."""
    size = round(scale * filled[0]), round(scale * filled[1])
    labels = blobs(4, size)
    found = patch_labels(labels, filled, 10, 3)
    assert found.shape == (-(-filled[0] // 10), -(-filled[1] // 10))
    on_input = np.asarray(Image.fromarray(labels).resize(filled[::-1], Image.Resampling.NEAREST))
    for y, x in np.ndindex(found.shape):
        inside = np.bincount(on_input[10 * y : 10 * y + 10, 10 * x : 10 * x + 10].ravel(), minlength=3)
        assert inside[found[y, x]] > 0
    padding = np.ones(GRID, bool)
    padding[: found.shape[0], : found.shape[1]] = False
    for stopped, expected in ((padding, 0), (np.ones(GRID, bool), found.size)):
        counts = StoppedTokens(3, 1, (50, 70))
        dense = result(labels, np.ones((1, *GRID), bool), filled)
        counts.add(result((labels + 1) % 3, ~stopped[None], filled), dense)
        assert counts.by_decision().sum() == expected


@pytest.mark.parametrize("seed", range(5))
def test_distances(seed: int) -> None:
    labels = blobs(seed, (12, 17))
    found = distance_from_edge(labels)
    for y, x in np.ndindex(labels.shape):
        other = np.argwhere(labels != labels[y, x])
        nearest = int(np.abs(other - (y, x)).max(axis=1).min()) if len(other) else FARTHEST
        assert found[y, x] == min(nearest, FARTHEST)
    assert (distance_from_edge(np.zeros((3, 3), np.int64)) == FARTHEST).all()


def test_counts() -> None:
    random = np.random.default_rng(0)
    counts = StoppedTokens(3, 2, (50, 70))
    expected: Counter[tuple[int, int, int, bool]] = Counter()
    for seed in range(3):
        dense, found = blobs(seed, (50, 70)), blobs(seed, (50, 70)).copy()
        found[random.random(found.shape) < 0.5] = 1
        first = random.random(GRID) < 0.6
        keep_maps = np.stack([first, first & (random.random(GRID) < 0.5)])
        counts.add(result(found, keep_maps), result(dense, np.ones((2, *GRID), bool)))
        wanted, made = (patch_labels(one, (50, 70), 10, 3) for one in (dense, found))
        distance = distance_from_edge(wanted)
        for y, x in np.ndindex(GRID):
            if not keep_maps[1, y, x]:  # stopped at the first decision that does not keep it
                decision = int(keep_maps[0, y, x])
                place = decision, int(wanted[y, x]), int(distance[y, x]), bool(made[y, x] != wanted[y, x])
                expected[place] += 1
    for place in np.ndindex(counts.counts.shape):
        decision, label, distance, wrong = place
        assert counts.counts[place] == expected[decision, label, distance + 1, bool(wrong)]
    reported = counts.as_json(("a", "b", "c"))
    assert sum(row["stopped"] for row in reported["decisions"]) == sum(expected.values())
    assert sum(row["wrong"] for row in reported["classes"].values()) == sum(n for k, n in expected.items() if k[3]) > 0
    assert list(reported["distances"]) == ["1", "2", "3", "4 or more"]


def test_the_command_compares_with_a_threshold_of_one(tmp_path: Path) -> None:
    import typer

    from dovit.training.cli.eval import command

    make_bundle(randomised(small_config("segmenter-linear", classes=19)), tmp_path / "engines")
    app = typer.Typer()
    app.command()(command)
    arguments = ["--engine", str(tmp_path / "engines"), "--data", "streets:3", "--sweep", "0.4,0.6"]
    done = CliRunner().invoke(app, [*arguments, "--stopped", "--out", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "label would have been another, ξ = 0.4" in done.stdout and "distance 1" in done.stdout
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert [one["name"] for one in settings] == ["ξ = 0.4", "ξ = 0.6", "ξ = 1"]
    for one in settings:
        stopped = sum(row["stopped"] for row in one["stopped"]["decisions"])
        assert stopped == pytest.approx(3 * (one["tokens"] - one["kept"][-1]))
    assert sum(row["wrong"] for row in settings[0]["stopped"]["distances"].values()) > 0
    done = CliRunner().invoke(app, [*arguments, "--stopped", "--mode", "slide"])
    assert done.exit_code != 0


def test_the_command_leaves_padding_out(tmp_path: Path) -> None:
    """With keep_ratio: an upright image in a wide input, whose right half is padding."""
    import typer

    from dovit.training.cli.eval import command

    model = randomised(small_config("segmenter-linear", keep_ratio=True))
    make_bundle(model, tmp_path / "engines")
    save_model(model, tmp_path / "model.safetensors")
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    image = random_images(model.config)[0, :, :48].numpy()  # 64×48 of 64×96: patches of 3 columns of 6
    Image.fromarray(image).save(tmp_path / "data/images/a.png")
    Image.fromarray(image[..., 0] % 7).save(tmp_path / "data/labels/a.png")
    app = typer.Typer()
    app.command()(command)
    session = load(tmp_path / "engines")
    found = [session(image, threshold=xi) for xi in (0.5, 1)]
    assert found[0].filled == (64, 48)
    keeps = found[0].keep_maps[:, :, :3]
    expected = [int((~keeps[0]).sum()), int((keeps[0] & ~keeps[1]).sum())]
    assert sum(expected) < 24 - found[0].kept[-1]  # some of the padding has stopped too
    for source in ("engine", "ckpt"):
        given = str(tmp_path / ("engines" if source == "engine" else "model.safetensors"))
        arguments = [
            f"--{source}",
            given,
            "--data",
            str(tmp_path / "data"),
            "--threshold",
            "0.5",
            "--stopped",
            "--json",
        ]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)["settings"][0]["stopped"]["decisions"]
        assert [row["stopped"] for row in told] == expected
