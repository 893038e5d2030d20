"""The evaluation against mmsegmentation's metrics, against single runs, and against the manifest's own costs."""

import gc
import json
import math
import re
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import make_bundle
from models import random_images, randomised, small_config, spreading_thresholds

from dovit.evaluation.cost import Cost
from dovit.evaluation.data.dataset import Sample
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.histogram import LogHistogram
from dovit.evaluation.metrics import Confusion
from dovit.evaluation.segmenter import BundleSegmenter, Setting
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result
from dovit.runtime.session import Session, load
from dovit.training.dense_segmenter import dense_segmenter
from dovit.training.policies.dynamic_vit import DynamicViT
from dovit.training.torch_segmenter import TorchSegmenter


@dataclass
class Images:
    """A data set of random images and labels; the images are 70×100, so that they are resized on the way."""

    count: int
    classes: int = 7
    class_names = None
    palette = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        random = np.random.default_rng(number)
        image = random_images(small_config(image_size=(80, 112)), seed=number)[0].numpy()[:70, :100]
        labels = random.integers(0, 7, (70, 100)).astype(np.uint8)
        labels[:9] = 255
        return Sample(f"image {number}", np.ascontiguousarray(image), labels)


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


@pytest.mark.oracle
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize("seed", range(6))
def test_metrics_are_mmsegmentations(seed: int) -> None:
    from mmseg.evaluation import IoUMetric

    random = np.random.default_rng(seed)
    classes = int(random.integers(3, 30))
    present = random.choice(classes, size=max(2, classes // 2), replace=False)  # the others do not occur
    confusion, metric = Confusion(classes), IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": tuple(map(str, range(classes)))}
    for _ in range(4):
        labels = random.choice(present, size=(33, 47)).astype(np.uint8)
        guess = np.where(random.random(labels.shape) < 0.6, labels, random.choice(present[1:], size=labels.shape))
        labels[random.random(labels.shape) < 0.1] = 255
        confusion.add(guess.astype(np.uint8), labels)
        sample = {
            "pred_sem_seg": {"data": torch.tensor(guess)[None]},
            "gt_sem_seg": {"data": torch.tensor(labels)[None]},
        }
        metric.process({}, [sample])
    expected = metric.compute_metrics(metric.results)  # rounded to two digits
    found = confusion.summary()
    for ours, theirs in (("PA", "aAcc"), ("mPA", "mAcc"), ("mIoU", "mIoU")):
        assert found[ours] == pytest.approx(expected[theirs], abs=0.00501)


def test_metrics_by_hand() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]))
    assert confusion.iou.tolist()[:2] == [0.5, 0.5] and math.isnan(confusion.iou[2])
    assert confusion.summary() == pytest.approx({"PA": 200 / 3, "mPA": 75, "mIoU": 50})
    assert math.isnan(Confusion(3).summary()["mIoU"])
    with pytest.raises(DovitError, match="label is 7"):
        confusion.add(np.zeros((1, 1), int), np.array([[7]]))
    with pytest.raises(DovitError, match="labels are 2×1 pixels, the image 1×1"):
        confusion.add(np.zeros((1, 1), int), np.array([[0, 0]]))


def test_another_ignore_index() -> None:
    confusion = Confusion(3, ignore=0)
    confusion.add(np.array([[1, 2, 1]]), np.array([[0, 2, 255]]))
    assert confusion.summary()["PA"] == 100 and confusion.counts.sum() == 1


def test_quantiles_to_a_percent() -> None:
    values, spread = np.random.default_rng(0).lognormal(-4, 1, 5000), LogHistogram()
    for value in values:
        spread.add(float(value))
    for share in (0.1, 0.5, 0.9):
        assert spread.quantile(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)
    assert spread.mean == pytest.approx(values.mean())
    assert math.isnan(LogHistogram().quantile(0.5))


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


# --- the command ---


def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    from dovit.training.cli.eval import main

    monkeypatch.setattr("sys.argv", ["dovit-eval", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    output = capfd.readouterr()
    return int(end.value.code or 0), output.out, output.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: DoViT) -> Path:
    """A bundle, a checkpoint, and a folder of pairs."""
    from PIL import Image

    from dovit.export.checkpoints import save_model

    root = tmp_path_factory.mktemp("place")
    make_bundle(model, root / "engines")
    save_model(model, root / "model.safetensors")
    for part in ("images", "labels"):
        (root / "data" / part).mkdir(parents=True)
    for number in range(3):
        sample = Images(3)[number]
        Image.fromarray(sample.image).save(root / "data/images" / f"{number}.png")
        Image.fromarray(sample.labels).save(root / "data/labels" / f"{number}.png")
    return root


def test_command_sweeps_and_writes(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, output, errors = command(
        capfd,
        monkeypatch,
        "--engine",
        str(place / "engines"),
        "--data",
        str(place / "data"),
        "--sweep",
        "0.3,0.5/0.3,0.5",
        "--sweep",
        "1",
        "--fixed-ratio",
        "--plot",
        str(tmp_path / "a.png"),
        "--out",
        str(tmp_path / "a.json"),
        "--per-image",
        str(tmp_path / "a.jsonl"),
        "--json",
    )
    assert status == 0, errors
    report = json.loads(output)
    assert report == json.loads((tmp_path / "a.json").read_text())
    assert [s["name"] for s in report["settings"]][:4] == ["ξ = 0.3", "ξ = 0.5/0.3", "ξ = 0.5", "ξ = 1"]
    swept, fixed = report["settings"][:4], report["settings"][4:]
    assert [s["macs_ratio_paper"] for s in swept] == sorted(s["macs_ratio_paper"] for s in swept)
    for ours, theirs in zip(swept, fixed, strict=True):
        assert theirs["counts"] == [round(k) for k in ours["kept"]]
        assert theirs["macs_ratio_paper"] == pytest.approx(ours["macs_ratio_paper"], abs=0.02)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.jsonl", "a.png"]


def test_command_on_a_checkpoint_prints_classes(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--ckpt", str(place / "model.safetensors"), "--data", f"folder:{place / 'data'}", "--threshold", "0.5"]
    status, output, errors = command(capfd, monkeypatch, *arguments)
    assert status == 0, errors
    assert "ξ = 0.5" in output and "mIoU" in output and "Classes" in output


def test_command_runs_the_dense_model_beside(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--engine", str(place / "engines"), "--data", str(place / "data"), "--sweep", "0.4,0.6", "--dense"]
    written = ["--fixed-ratio", "--plot", str(tmp_path / "a.svg"), "--out", str(tmp_path / "a.json")]
    status, output, errors = command(capfd, monkeypatch, *arguments, *written)
    assert status == 0, errors
    assert "speed-up: over dense, one graph" in output
    report = json.loads((tmp_path / "a.json").read_text())
    assert len(report["settings"]) == 4 and report["dense"]["macs_ratio_true"] == 1
    assert all(one["speedup_median"] > 0 for one in report["settings"])
    assert "speed-up over dense, one graph" in re.sub(r"<!--|-->", "", (tmp_path / "a.svg").read_text())
    for name in ("dovit.training.dense_segmenter", "dovit.export.graph.dense"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnx_graphsurgeon", None)
    status, _, errors = command(capfd, monkeypatch, *arguments)
    assert status == 2 and "pip install 'dovit[export]'" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--data", "DATA"], "either --engine", 2),
        (["--engine", "ENGINE", "--data", "streets:2"], "19 classes", 2),
        (["--engine", "ENGINE", "--data", "nowhere"], "no such folder", 2),
        (["--engine", "nowhere", "--data", "DATA"], "nowhere", 1),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "2"], "outside [0, 1]", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "a"], "numbers", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "0.5/0.6/0.7"], "or 2 of them between slashes", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5"], "2 falling shares", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.2,0.5"], "falling", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5,0.2", "--sweep", "1"], "one of", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--plot", "a.png"], "--sweep", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--out", "no/folder/a.json"], "no such folder", 1),
        (["--engine", "ENGINE", "--data", "DATA", "--sweep", "1", "--plot", "a.doc"], "ends in one of", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--keep", "0.5,0.2", "--fixed-ratio"], "one of them", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--out", "a", "--per-image", "a"], "a file each", 2),
        (["--ckpt", "ENGINE", "--data", "DATA", "--dense"], "for a bundle on a CPU", 2),
        (["--engine", "ENGINE", "--data", "DATA", "--backend", "tensorrt-rtx", "--dense"], "for a bundle on a CPU", 2),
        (["--ckpt", "ENGINE", "--data", "DATA", "--schedule", "bucketed"], "a checkpoint is run by torch", 2),
    ],
)
def test_wrong_usage_is_one_line(
    place: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
    code: int,
) -> None:
    places = {"ENGINE": str(place / "engines"), "DATA": str(place / "data")}
    status, _, errors = command(capfd, monkeypatch, *[places.get(one, one) for one in arguments])
    assert status == code and sentence in errors and errors.count("\n") == 1 and "Traceback" not in errors


def test_command_writes_a_report(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--engine", str(place / "engines"), "--data", str(place / "data"), "--mode", "slide"]
    report = tmp_path / "report.html"
    status, output, errors = command(capfd, monkeypatch, *arguments, "--report", str(report))
    assert status == 0, errors
    assert f"report: {report}" in output
    assert "pixel accuracy" in report.read_text() and "Figure 4" not in report.read_text()  # no sweep
    status, _, errors = command(capfd, monkeypatch, *arguments, "--report", str(tmp_path / "report.pdf"))
    assert status == 2 and "ends in .html" in errors
    monkeypatch.setitem(sys.modules, "plotly", None)
    status, _, errors = command(capfd, monkeypatch, *arguments, "--report", str(report))
    assert status == 2 and "pip install 'dovit[report]'" in errors
