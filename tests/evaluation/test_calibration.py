"""What a calibration reports, measured again with other sessions."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_images, randomised, small_config
from PIL import Image

from dovit.evaluation.calibration.capacities import cross_validated_fill, fit_capacities, mean_fill
from dovit.evaluation.calibration.confidences import Confidences
from dovit.evaluation.calibration.fit import Calibration, Target, calibrate
from dovit.evaluation.calibration.observe import Observer
from dovit.evaluation.calibration.point import COUNTS, PointAccumulator
from dovit.evaluation.calibration.thresholds import refine
from dovit.evaluation.calibration.write import write_calibration
from dovit.runtime.bundle.open import open_bundle, read_manifest
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load
from dovit.runtime.result import Result
from dovit.runtime.session import Session

CONFIG = small_config(image_size=(128, 192))  # 96 tokens, decisions after layers 2 and 4
TOKENS = 96
IMAGES = 10


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(CONFIG), folder)
    return folder


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return load(bundle, threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    images = random_images(CONFIG, IMAGES).numpy()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def run(session: Session, files: Sequence[Path], thresholds: Sequence[float], **options: Any) -> list[Result]:
    return [session(Image.open(file), threshold=thresholds, **options) for file in files]


def mean_cost(session: Session, results: Sequence[Result], count: str) -> float:
    which = COUNTS.index(count)  # type: ignore[arg-type]
    costs = [session.manifest.macs(r.kept)[which] for r in results]
    return float(np.mean(costs)) / session.manifest.dense_macs[which]


def disagreement(session: Session, files: Sequence[Path], thresholds: Sequence[float]) -> float:
    dense, sparse = run(session, files, (1.0, 1.0)), run(session, files, thresholds)
    return float(np.mean([a.labels != b.labels for a, b in zip(dense, sparse, strict=True)]))


# ---- targets


@pytest.mark.parametrize("keep", [(0.5, 0.25), (0.9, 0.9), (1.0, 0.4), (0.02, 0.02)])
def test_the_shares_asked_for_are_kept(session: Session, files: list[Path], keep: tuple[float, float]) -> None:
    found = calibrate(Observer(session, files), Target(keep=keep), points=0)
    kept = np.mean([r.kept for r in run(session, files, found.after.thresholds)], axis=0)
    np.testing.assert_allclose(kept / TOKENS, keep, atol=0.005)
    np.testing.assert_allclose(found.after.shares, kept / TOKENS)
    assert not [note for note in found.notes if "instead of" in note] and not found.curve


def test_tokens_of_padding_count_and_its_pixels_do_not(tmp_path: Path, files: list[Path]) -> None:
    """What the docs say of keep_ratio: an upright image fills a third of the input, and the model computes all of it."""
    make_bundle(randomised(small_config(image_size=(128, 192), keep_ratio=True)), tmp_path / "bundle")
    upright = [tmp_path / file.name for file in files]
    for file, path in zip(files, upright, strict=True):
        Image.open(file).crop((0, 0, 64, 128)).save(path)
    session = load(tmp_path / "bundle", threads=1)
    found = calibrate(Observer(session, upright), Target(keep=(0.5, 0.25)), points=0).after
    results = run(session, upright, found.thresholds)
    assert {result.filled for result in results} == {(128, 64)}
    np.testing.assert_allclose(np.mean([r.kept for r in results], axis=0) / TOKENS, found.shares)
    np.testing.assert_allclose(found.shares, (0.5, 0.25), atol=0.01)
    assert session(Image.open(upright[0]), keep=(0.5, 0.25)).kept == (TOKENS // 2, TOKENS // 4)
    assert {result.labels.shape for result in results} == {(128, 64)}
    assert found.disagreement == pytest.approx(disagreement(session, upright, found.thresholds), abs=1e-12)


@pytest.mark.parametrize(("ratio", "count"), [(0.6, "paper"), (0.8, "true"), (0.95, "paper")])
def test_the_cost_asked_for_is_paid(session: Session, files: list[Path], ratio: float, count: Any) -> None:
    found = calibrate(Observer(session, files), Target(macs=ratio, count=count), points=5)
    assert len(set(found.after.thresholds)) == 1
    results = run(session, files, found.after.thresholds)
    assert mean_cost(session, results, count) == pytest.approx(ratio, abs=0.005)
    for name in COUNTS:
        assert found.after.ratio(name) == pytest.approx(mean_cost(session, results, name), rel=1e-12)


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1])
def test_no_more_labels_change_than_asked_for(session: Session, files: list[Path], limit: float) -> None:
    found = calibrate(Observer(session, files), Target(max_disagreement=limit), points=7)
    measured = disagreement(session, files, found.after.thresholds)
    assert measured <= limit and found.after.disagreement == pytest.approx(measured, abs=1e-12)
    cheaper = [p for p in found.curve if p.ratio("paper") < found.after.ratio("paper")]
    assert all(p.disagreement > limit for p in cheaper)
    if limit == 0.1:
        assert found.after.ratio("paper") < 0.99


def test_one_threshold_a_decision_costs_less_and_still_agrees(session: Session, files: list[Path]) -> None:
    files = files[:4]
    observer = Observer(session, files)
    start = observer.measure([(0.99, 0.99)])[0]
    limit = 1.5 * start.disagreement
    best = refine(observer, start, limit, "paper")
    assert best.ratio("paper") < start.ratio("paper") and best.disagreement <= limit
    assert disagreement(session, files, best.thresholds) == pytest.approx(best.disagreement, abs=1e-12)
    assert mean_cost(session, run(session, files, best.thresholds), "paper") == pytest.approx(best.ratio("paper"))
    tight = calibrate(observer, Target(max_disagreement=0.1), points=4).after
    whole = calibrate(observer, Target(max_disagreement=0.1, per_decision=True), points=4).after
    assert whole.ratio("paper") <= tight.ratio("paper") and whole.disagreement <= 0.1


def test_slide_counts_windows(session: Session, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (160, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    files = [tmp_path / "wide.png"]
    found = calibrate(Observer(session, files, "slide"), Target(keep=(0.6, 0.3)), points=3)
    result = session(pixels, mode="slide", threshold=found.after.thresholds)
    assert len(result.windows) > 1
    np.testing.assert_allclose(np.array(result.kept) / result.tokens, (0.6, 0.3), atol=0.005)
    np.testing.assert_allclose(np.array(result.kept) / result.tokens, found.after.shares)


def test_the_curve_is_what_sessions_say(session: Session, files: list[Path]) -> None:
    found = calibrate(Observer(session, files), Target(keep=(0.5, 0.5)), points=6)
    assert [p.thresholds[0] for p in found.curve] == sorted(p.thresholds[0] for p in found.curve)
    assert found.curve[0].thresholds == (0, 0) and found.curve[-1].thresholds == (1, 1)
    assert found.curve[-1].disagreement == 0 and found.curve[-1].kept == (TOKENS, TOKENS)
    assert len({p.thresholds for p in found.curve}) >= 6
    middle = found.curve[3]
    results = run(session, files, middle.thresholds)
    counts = np.array([r.kept for r in results])
    np.testing.assert_allclose(middle.kept, counts.mean(axis=0))
    np.testing.assert_allclose(middle.kept_error, counts.std(axis=0, ddof=1) / np.sqrt(len(files)))
    assert middle.disagreement == pytest.approx(disagreement(session, files, middle.thresholds), abs=1e-12)
    assert json.loads(json.dumps(found.as_json()))["curve"][3]["kept"] == list(middle.kept)


def test_addresses_that_cannot_be_reached_are_named(session: Session, files: list[Path]) -> None:
    observer = Observer(session, files[:2])
    with pytest.raises(DovitError, match=r"--macs 0.01 cannot be reached.*still costs 0\.\d+ of the dense"):
        calibrate(observer, Target(macs=0.01))
    one = calibrate(Observer(session, files[:1]), Target(keep=(0.505, 0.26)), points=0)
    assert any("instead of" in note or "few images" in note for note in one.notes)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (Target(), "exactly one target"),
        (Target(keep=(0.5, 0.2), macs=0.5), "exactly one target"),
        (Target(keep=(0.5,)), "give 2 shares, one a decision"),
        (Target(keep=(0.3, 0.5)), "a stopped token never returns, so 0.5 cannot follow 0.3"),
        (Target(keep=(0.5, 0.0)), "0 is not a share"),
        (Target(keep=(float("nan"), 0.1)), "nan is not a share"),
        (Target(macs=1.0), "between 0 and 1"),
        (Target(macs=float("nan")), "between 0 and 1"),
        (Target(max_disagreement=5), "below 1"),
        (Target(max_disagreement=-0.1), "below 1"),
        (Target(keep=(0.5, 0.2), per_decision=True), "--per-decision goes with --max-disagreement"),
    ],
)
def test_invalid_targets_are_refused(session: Session, target: Target, sentence: str) -> None:
    observer = Observer(session, [Path("never read")])
    with pytest.raises(UsageError, match=sentence):
        calibrate(observer, target)
    with pytest.raises(UsageError, match="at least 2"):
        calibrate(observer, Target(keep=(0.5, 0.2)), buckets=1)


# ---- confidences


def kept_by(values: np.ndarray, threshold: float) -> int:
    return int((~(values > np.float32(threshold))).sum())


@given(st.lists(st.floats(2**-7, 1, width=32) | st.just(float("nan")) | st.just(1.0), min_size=1), st.floats(0, 1))
@settings(deadline=None, max_examples=200)
def test_a_threshold_keeps_what_it_says_and_nothing_comes_nearer(values: list[float], share: float) -> None:
    array = np.array(values, np.float32)
    seen = Confidences()
    for part in np.array_split(array, 3):
        seen.add(part)
    target = share * len(array)
    threshold, kept = seen.threshold(target)
    assert kept == kept_by(array, threshold) and seen.total == len(array) and 0 <= threshold <= 1
    possible = [kept_by(array, x) for x in [0.0, *array[~np.isnan(array)]]]
    # below ½ confidences within 2⁻¹⁵ of each other are one
    if np.all(np.isnan(array) | (array >= 0.5)):
        assert abs(kept - target) == min(abs(p - target) for p in possible)


def test_saturated_confidences() -> None:
    values = 1 - np.float32(2.0**-24) * np.arange(50, dtype=np.float32)  # one float32 after the other
    seen = Confidences()
    seen.add(np.concatenate([values, np.full(50, np.float32(1))]))
    for keep in range(50):
        threshold, kept = seen.threshold(keep)
        assert kept == keep == kept_by(np.concatenate([values, np.ones(50, np.float32)]), threshold)
    assert seen.threshold(60) == (pytest.approx(1, abs=1e-6), 49)  # 51 are exactly 1.0: they stay or stop together
    assert seen.equal_at(seen.threshold(60)[0]) == (1.0, 51)


def test_saturated_confidences_are_the_reason_given(files: list[Path]) -> None:
    class Saturated:
        manifest = SimpleNamespace(
            tokens=4,
            decisions=(1,),
            capacities=(0, 4),
            thresholds=(0.5,),
            dense_macs=(4, 4),
            macs=lambda kept: (sum(kept), sum(kept)),
        )

        def __call__(self, image: object, *, mode: str, threshold: Sequence[float]) -> Result:
            q = np.array([[[0.2, 1.0], [1.0, 1.0]]], np.float32)
            keep = ~(q > np.float32(threshold[0]))
            return Result(np.zeros((2, 2), np.uint8), (int(keep.sum()),), 4, keep, q)

    observer = Observer(Saturated(), files[:3])  # type: ignore[arg-type]
    found = calibrate(observer, Target(keep=(0.5,)), points=0)
    assert found.after.shares == (0.25,)
    assert "keeps 25.0% instead of 50.0%: 75.0% of all tokens have exactly the confidence 1" in found.notes[0]
    assert calibrate(observer, Target(keep=(0.9,)), points=0).after.shares == (1.0,)


# ---- capacities

histograms = st.lists(st.integers(0, 5), min_size=2, max_size=10).map(lambda counts: np.array(counts, np.int64))


@given(histograms, st.integers(2, 6), st.sampled_from([1, 1, 3]))
@settings(deadline=None, max_examples=150)
def test_capacities_are_the_best_there_are(counts: np.ndarray, buckets: int, round_to: int) -> None:
    tokens = len(counts) - 1
    found = fit_capacities(counts, buckets, round_to)
    assert found[0] == 0 and found[-1] == tokens and list(found) == sorted(set(found)) and len(found) <= buckets
    assert all(c % round_to == 0 for c in found[:-1])
    between = range(round_to, tokens, round_to)
    every = [(0, *c, tokens) for n in range(buckets - 1) for c in itertools.combinations(between, n)]
    assert mean_fill(counts, found) == min(mean_fill(counts, c) for c in every)


def test_capacities_of_a_real_size_are_quick_and_better_than_the_sixteenths() -> None:
    random = np.random.default_rng(0)
    kept = random.beta(2, 5, 3000) * 8192
    counts = np.bincount(kept.astype(int), minlength=8193)
    old = tuple(range(0, 8193, 512))
    found = fit_capacities(counts, len(old))
    assert mean_fill(counts, found) < 0.7 * mean_fill(counts, old)
    assert cross_validated_fill(np.stack([counts]), 17) is None
    folds = np.stack([np.bincount(part.astype(int), minlength=8193) for part in np.array_split(kept, 5)])
    unseen = cross_validated_fill(folds, len(old))
    assert unseen is not None and mean_fill(counts, found) < unseen < mean_fill(counts, old)


def test_mean_fill() -> None:
    assert mean_fill(np.array([1, 0, 2, 0, 1]), (0, 3, 4)) == 0.5
    assert mean_fill(np.zeros(5, np.int64), (0, 4)) == 0


def test_decisions_that_are_not_made_are_not_counted() -> None:
    manifest: Any = SimpleNamespace(decisions=(1, 2, 3), tokens=4, dense_macs=(1, 1), macs=lambda kept: (1, 1))
    tally = PointAccumulator(manifest, (0.5,) * 3)
    maps = np.zeros((3, 2, 2), bool)
    result = Result(np.zeros((2, 2), np.uint8), (3, 0, 0), 4, maps, maps.astype(np.float32))
    tally.add(result, result)
    point = tally.point()
    assert point.counts.sum(axis=0).tolist() == [1, 0, 0, 1, 0] and point.kept == (3, 0, 0)
    assert np.isnan(point.kept_error).all() and point.as_json()["kept_standard_error"] == [None] * 3


# ---- writing


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "engines"))


@pytest.fixture(scope="module")
def calibration(session: Session, files: list[Path]) -> Calibration:
    return calibrate(Observer(session, files), Target(keep=(0.6, 0.3)), points=0, buckets=7)


def test_only_thresholds_and_capacities_change(copy: Path, files: list[Path], calibration: Calibration) -> None:
    before = read_manifest(copy)
    write_calibration(copy, before, calibration.after.thresholds, calibration.capacities)
    after = open_bundle(copy).manifest  # every hash is checked
    changed = {name for name, value in after.model_dump().items() if value != before.model_dump()[name]}
    assert changed == {"thresholds", "capacities"}
    assert sorted(os.listdir(copy)) == ["bundle.json", "onnx"]
    calibrated = load(copy, threads=1)
    exact = [calibrated(Image.open(file)).kept for file in files]  # the bundle's own ξ
    np.testing.assert_allclose(np.mean(exact, axis=0) / TOKENS, (0.6, 0.3), atol=0.005)
    bucketed = [calibrated(Image.open(file), schedule="bucketed").kept for file in files]
    assert all(count in calibration.capacities for kept in bucketed for count in kept)
    fills = [b[0] - e[0] for b, e in zip(bucketed, exact, strict=True)]  # later decisions see the filled tokens, too
    assert min(fills) >= 0 and calibration.fill <= calibration.fill_before


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
@pytest.mark.parametrize(
    ("raised", "expected", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DovitError, r"bundle\.json: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), DovitError, "cannot be written"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_write_that_fails_leaves_the_old_manifest(
    copy: Path, monkeypatch: pytest.MonkeyPatch, where: str, raised: BaseException, expected: Any, sentence: str | None
) -> None:
    before, manifest = (copy / "bundle.json").read_bytes(), read_manifest(copy)

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(f"dovit.runtime.files.{where}", fail)
    with pytest.raises(expected, match=sentence):
        write_calibration(copy, manifest, (0.1, 0.2), (0, 5, TOKENS))
    assert (copy / "bundle.json").read_bytes() == before
    assert sorted(os.listdir(copy)) == ["bundle.json", "onnx"]


def test_a_bundle_that_was_exported_again_is_left_alone(copy: Path) -> None:
    manifest = read_manifest(copy)
    write_calibration(copy, manifest, (0.1, 0.2), manifest.capacities)
    before = (copy / "bundle.json").read_bytes()
    with pytest.raises(DovitError, match="changed meanwhile"):
        write_calibration(copy, manifest, (0.3, 0.4), manifest.capacities)
    assert (copy / "bundle.json").read_bytes() == before


def test_the_mode_of_the_manifest_and_a_link_stay(copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "manifest.json"
    (copy / "bundle.json").rename(elsewhere)
    elsewhere.chmod(0o640)
    (copy / "bundle.json").symlink_to(elsewhere)
    write_calibration(copy, read_manifest(copy), (0.1, 0.2), (0, 5, TOKENS))
    assert (copy / "bundle.json").is_symlink() and elsewhere.stat().st_mode & 0o777 == 0o640
    assert read_manifest(copy).capacities == (0, 5, TOKENS)
