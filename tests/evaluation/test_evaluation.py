"""The evaluation against single runs, and against the manifest's own costs."""

import gc
import json
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from labelled_noise import Images
from models import random_images, randomised, small_config, spreading_thresholds

from dovit.evaluation.cost import Cost
from dovit.evaluation.data.dataset import Sample
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.metrics import Confusion
from dovit.evaluation.segmenter import BundleSegmenter, Setting
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.training.dense_segmenter import dense_segmenter
from dovit.training.policies.dynamic_vit import DynamicViT
from dovit.training.torch_segmenter import TorchSegmenter


@pytest.fixture(scope="module")
def model() -> DoViT:
    return randomised(small_config())


@pytest.fixture(scope="module")
def thresholds(model: DoViT) -> tuple[float, ...]:
    return spreading_thresholds(model, random_images(model.config, batch=4))


@pytest.fixture(scope="module")
def bundle(model: DoViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(model, folder)
    return folder


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return load(bundle)


def test_cost_is_the_manifests(session: Session) -> None:
    cost = Cost.of_bundle(session.manifest)
    for kept in ((24, 24), (17, 5), (9, 0), (0, 0)):
        assert cost.of(kept) == session.manifest.macs(kept)
    assert cost.by_step((0, 0))[1:3] == [(0, 0), (0, 0)] and cost.by_step((3, 0))[1][0] > 0


def test_a_sweep_is_what_single_runs_are(session: Session, thresholds: tuple[float, ...]) -> None:
    settings = [Setting("some", thresholds), Setting("all", (1.0, 1.0))]
    together = evaluate(BundleSegmenter(session), Images(5), settings)
    for outcome, setting in zip(together, settings, strict=True):
        (alone,) = evaluate(BundleSegmenter(session), Images(5), [setting])
        expected = Confusion(7)
        for number in range(5):
            sample = Images(5)[number]
            expected.add(session(sample.image, threshold=setting.thresholds).labels, sample.labels)
        assert np.array_equal(outcome.confusion.counts, expected.counts)
        assert np.array_equal(outcome.confusion.counts, alone.confusion.counts)
        assert np.array_equal(outcome.counts, alone.counts) and outcome.macs == alone.macs
    assert together[0].macs < together[1].macs and together[1].kept == (24, 24)
    assert outcome_means_its_images(session, together[0])


def outcome_means_its_images(session: Session, outcome: object) -> bool:
    from dovit.evaluation.evaluate import Outcome

    assert isinstance(outcome, Outcome)
    kept = [session(Images(5)[k].image, threshold=outcome.setting.thresholds).kept for k in range(5)]
    assert outcome.kept == pytest.approx(np.mean(kept, axis=0))
    assert outcome.macs == tuple(np.sum([session.manifest.macs(k) for k in kept], axis=0))
    assert outcome.kept_quantile(0.5) == tuple(np.median(kept, axis=0))
    return True


class Clock:
    """Stands for time.perf_counter; what is measured moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Timed:
    """A segmenter that takes as long as `seconds` says of the image (its first pixel) and the setting."""

    inner: BundleSegmenter
    clock: Clock
    seconds: Callable[[int, Setting], float]

    def __post_init__(self) -> None:
        self.cost, self.classes, self.decisions = self.inner.cost, self.inner.classes, self.inner.decisions

    def segment(self, image: np.ndarray, setting: Setting) -> Result:
        self.clock.now += self.seconds(int(image[0, 0, 0]), setting)
        return self.inner.segment(image, setting)


def test_speed_ups_are_medians_of_an_images_own_ratio(
    session: Session, bundle: Path, thresholds: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("dovit.evaluation.evaluate.time.perf_counter", clock)
    factors = {"some": 2.0, "all": 3.0}
    chain = Timed(BundleSegmenter(session), clock, lambda pixel, setting: (1 + pixel) * factors[setting.name])
    settings = [Setting("some", thresholds), Setting("all", (1.0, 1.0))]
    some, every = evaluate(chain, Images(5), settings)
    assert (some.speedup_over, every.speedup_over) == ("all", "all")
    assert some.speedup.quantile(0.5) == pytest.approx(1.5, rel=0.011)
    assert every.speedup.quantile(0.5) == pytest.approx(1, rel=0.011)
    (alone,) = evaluate(chain, Images(2), settings[:1])
    assert alone.speedup_over is None and math.isnan(alone.speedup.quantile(0.5))

    records: list[dict] = []
    with dense_segmenter(bundle, session, "whole", None) as inner:
        dense = Timed(inner, clock, lambda pixel, setting: (1 + pixel) * 5.0)
        some, every, without = evaluate(chain, Images(5), settings, dense=dense, per_image=records.append)
    assert [one.speedup.quantile(0.5) for one in (some, every, without)] == pytest.approx([2.5, 5 / 3, 1], rel=0.011)
    assert without.setting.name == some.speedup_over == "dense, one graph"
    assert without.kept == () and without.macs_ratio == (1, 1)
    assert np.abs(without.confusion.counts - every.confusion.counts).sum() <= 10  # a rounding error may turn a pixel
    assert [len(record["settings"]) for record in records] == [2] * 5  # those of the sweep


def test_slide_counts_windows(session: Session, thresholds: tuple[float, ...]) -> None:
    (outcome,) = evaluate(BundleSegmenter(session, "slide"), Images(2), [Setting("", thresholds)])
    assert outcome.images == 2 and outcome.windows == 8  # 70×100 by windows of 64×96
    assert outcome.counts.sum(axis=1).tolist() == [8, 8]


@pytest.mark.parametrize("kind", ["bundle", "torch"])
def test_a_fixed_ratio_keeps_the_least_confident(session: Session, model: DoViT, kind: str) -> None:
    segmenter = BundleSegmenter(session) if kind == "bundle" else TorchSegmenter(model)
    for number in range(3):
        result = segmenter.segment(Images(3)[number].image, Setting("", (1.0, 1.0), (10, 4)))
        assert result.kept == (10, 4)
        for decision in range(2):
            q, keep = result.confidence_maps[decision], result.keep_maps[decision]
            stopped = ~keep & ~np.isnan(q)
            assert keep.sum() == (10, 4)[decision] and q[keep].max() <= q[stopped].min()


def test_impossible_counts_are_refused(session: Session) -> None:
    image = Images(1)[0].image
    for counts in ((4, 10), (25, 4), (4,), (4, -1)):
        with pytest.raises(UsageError, match="falling numbers of tokens"):
            session(image, counts=counts)


def test_torch_and_bundle_agree(session: Session, model: DoViT, thresholds: tuple[float, ...]) -> None:
    settings = [Setting("some", thresholds), Setting("fixed", (1.0, 1.0), (10, 4))]
    ours = evaluate(TorchSegmenter(model), Images(4), settings)
    theirs = evaluate(BundleSegmenter(session), Images(4), settings)
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.counts, b.counts) and a.macs == b.macs and a.dense_macs == b.dense_macs
        assert np.abs(a.confusion.counts - b.confusion.counts).sum() <= 10  # a rounding error may turn a pixel


def test_torch_and_bundle_agree_on_more_classes_than_a_byte_has(tmp_path: Path) -> None:
    """On an image of the model's size, whose labels are the model's own."""
    model = randomised(small_config(classes=300))
    make_bundle(model, tmp_path)
    image = random_images(model.config)[0].numpy()
    ours = TorchSegmenter(model).segment(image, Setting.of((1.0, 1.0))).labels
    theirs = load(tmp_path)(image, threshold=1).labels
    assert theirs.max() > 255
    assert ours.dtype == theirs.dtype and (ours != theirs).sum() <= 10  # a rounding error may turn a pixel


def test_a_dynamic_vit_is_evaluated_at_its_own_ratio() -> None:
    model = DynamicViT(small_config(merge=False), 0.5).eval()
    segmenter = TorchSegmenter(model)
    (outcome,) = evaluate(segmenter, Images(2), [segmenter.own])
    assert outcome.kept == (12, 6) and outcome.confusion.counts.sum() == 2 * 61 * 100
    assert 0.3 < outcome.macs_ratio[0] < 1


def test_records_say_tokens_and_cost_by_block(session: Session, thresholds: tuple[float, ...]) -> None:
    records: list[dict] = []
    settings = [Setting("some", thresholds), Setting("all", (1.0, 1.0))]
    evaluate(BundleSegmenter(session), Images(3), settings, per_image=records.append)
    assert [record["name"] for record in records] == ["image 0", "image 1", "image 2"]
    for number, record in enumerate(json.loads(json.dumps(records))):
        some, every = record["settings"]
        assert (some["name"], every["name"], every["tokens"]) == ("some", "all", [24, 24, 24])
        kept = session(Images(3)[number].image, threshold=thresholds).kept
        assert some["tokens"] == [24, *kept] and sum(some["macs_true"]) == session.manifest.macs(kept)[1]


def test_images_are_freed(session: Session) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Watched(Images):
        def __getitem__(self, number: int) -> Sample:
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1  # the one before, until this one takes its place
            sample = super().__getitem__(number)
            alive.append(weakref.ref(sample.image))
            return sample

    evaluate(BundleSegmenter(session), Watched(6), [Setting("", (1.0, 1.0))])
    assert len(alive) == 6 + 1  # one to warm up


def test_the_first_image_is_read_once_to_warm_up_and_named(session: Session, thresholds: tuple[float, ...]) -> None:
    read: list[int] = []

    class Read(Images):
        def __getitem__(self, number: int) -> Sample:
            read.append(number)
            return super().__getitem__(number)

    class Thin(Images):
        def __getitem__(self, number: int) -> Sample:
            return Sample("thin.png", np.zeros((1, 60000, 3), np.uint8), np.zeros((1, 60000), np.uint8))

    settings = [Setting("some", thresholds), Setting("all", (1.0, 1.0))]
    evaluate(BundleSegmenter(session), Read(3), settings)
    assert read == [0, 0, 1, 2]
    with pytest.raises(UsageError, match=r"^thin\.png: .*too narrow"):
        evaluate(BundleSegmenter(session, "slide"), Thin(1), settings)


def test_what_cannot_be_measured_is_named(session: Session) -> None:
    class Wrong(Images):
        def __getitem__(self, number: int) -> Sample:
            sample = super().__getitem__(number)
            return Sample(sample.name, sample.image, sample.labels + np.uint8(number == 1) * 20)

    with pytest.raises(DovitError, match=r"image 1: a label is \d+"):
        evaluate(BundleSegmenter(session), Wrong(3), [Setting("", (1.0, 1.0))])
    with pytest.raises(DovitError, match="9 classes and the model 7"):
        evaluate(BundleSegmenter(session), Images(3, 9), [Setting("", (1.0, 1.0))])
    with pytest.raises(DovitError, match="no images"):
        evaluate(BundleSegmenter(session), Images(0), [Setting("", (1.0, 1.0))])


def test_limit(session: Session) -> None:
    (outcome,) = evaluate(BundleSegmenter(session), Images(9), [Setting("", (1.0, 1.0))], limit=2)
    assert outcome.images == 2
