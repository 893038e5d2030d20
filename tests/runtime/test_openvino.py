"""The provider openvino: the same results as ONNX Runtime's in float32, bounds in bf16, and sentences where it cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from installed import require
from models import randomised, small_config

from dovit.runtime import providers
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.chain import Chain
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.loading import load
from dovit.runtime.openvino import accuracy, device, speed
from dovit.runtime.openvino.accuracy import Bf16Accuracy
from dovit.runtime.openvino.engine import OpenVinoEngine
from dovit.runtime.providers import ChosenProvider

require("openvino")
needs_bf16 = pytest.mark.skipif(not device.computes_bf16(), reason="this CPU has no bf16 instructions")

# name → decoder and changes: every kind of decoder, head and backbone once
MODELS = {
    "naive": ("setr-naive", {}),
    "mla, heads on the map": ("setr-mla", {"head": "setr-k3"}),
    "mask": ("segmenter-mask", {}),
    "rotary": ("segmenter-linear", {"family": "rotary-gated"}),
    "eomt": ("eomt", {}),
    "without merging": ("segmenter-linear", {"head": "lens-unmerged"}),
    "lenses that see neighbours": ("segmenter-linear", {"head": "neighbours"}),
    "corrections": ("segmenter-linear", {"head": "corrected"}),
    # their sizes are in the weights file
    "many cells": ("segmenter-linear", {"head": "conv-unmerged", "merge_cells": 1, "image_size": (256, 320)}),
    "merging by cell, on several layers": ("segmenter-linear-taps", {"head": "lens-cells"}),
    "merging by cell, rotary": ("setr-mla", {"head": "conv-cells", "family": "rotary"}),
}


def bundle_of(name: str, folder: Path) -> Path:
    decoder, changes = MODELS[name]
    make_bundle(randomised(small_config(decoder, **changes)), folder)
    return folder


def image_for(manifest: object, seed: int = 0) -> np.ndarray:
    height, width = manifest.image_size  # type: ignore[attr-defined]
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of("naive", tmp_path_factory.mktemp("naive"))


@pytest.mark.parametrize("name", MODELS)
def test_float32_is_onnx_runtimes(name: str, tmp_path: Path) -> None:
    """Whole passes in both schedules, and with a batch: kept sets and labels equal, logits within 1e-4."""
    bundle = bundle_of(name, tmp_path)
    expected, found = load(bundle, provider="cpu"), load(bundle, provider="openvino")
    assert (found.provider, found.precision, found.schedule) == ("openvino", "fp32", "exact")
    images = np.concatenate([image_for(found.manifest, seed) for seed in range(2)])
    fewest = 0.0 if found.manifest.least_kept == 0 else 0.3
    for thresholds in ((1.0, 1.0), (0.5, 0.4), (fewest, fewest)):
        for schedule in ("exact", "rounded", "bucketed"):
            capacities = found.capacities(schedule)
            a, b = (s.chain.run(images, thresholds, capacities) for s in (expected, found))
            assert [d.keep.tolist() for d in a.decisions] == [d.keep.tolist() for d in b.decisions]
            np.testing.assert_allclose(b.logits, a.logits, atol=1e-4 * np.abs(a.logits).max(), rtol=0)
            assert (a.labels == b.labels).mean() > 0.999
            for one, other in zip(a.decisions, b.decisions, strict=True):
                np.testing.assert_allclose(other.confidence, one.confidence, atol=1e-5)


@needs_bf16
def test_a_batch_in_bf16_is_its_images_one_by_one(tmp_path: Path) -> None:
    """With as many tokens of each, of a model that merges by cell: each image has biases of its own in every attention."""
    session = load(
        bundle_of("merging by cell, on several layers", tmp_path),
        provider="openvino",
        precision="bf16",
        check_accuracy=False,
    )
    chain, xi, every = session.chain, (0.5, 0.5), range(session.manifest.tokens + 1)
    images = [image_for(session.manifest, seed) for seed in range(3)]
    assert isinstance(chain, Chain)
    together = chain.run(np.concatenate(images), xi, every, counts=(13, 5))
    for number, image in enumerate(images):
        alone = chain.run(image, xi, every, counts=(13, 5))
        for one, other in zip(alone.decisions, together.decisions, strict=True):
            assert one.keep[0].tolist() == other.keep[number].tolist()
            np.testing.assert_allclose(other.confidence[number], one.confidence[0], atol=0.02)
        np.testing.assert_allclose(
            together.logits[number], alone.logits[0], atol=0.03 * np.abs(alone.logits).max(), rtol=0
        )


def test_batches_are_refused_where_openvino_would_compute_them_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files for merging by cell as they were written before; one image at a time they are right."""
    monkeypatch.setattr("dovit.export.graph.openvino_rewrites._reduction_by_itself", lambda *_: None)
    # capacities that no other test has: bundles with the same are exported once
    make_bundle(randomised(small_config("segmenter-linear", head="conv-cells")), tmp_path, (0, 7, 24))
    session, expected = (load(tmp_path, provider=provider) for provider in ("openvino", "cpu"))
    images, allowed = [image_for(session.manifest, seed) for seed in range(2)], session.capacities("exact")
    for image in images:
        a, b = (one.chain.run(image, (0.9, 0.5), allowed) for one in (expected, session))
        np.testing.assert_allclose(b.logits, a.logits, atol=1e-4 * np.abs(a.logits).max(), rtol=0)
    with pytest.raises(
        DovitError, match="for one image at a time only with this file of an older dovit: export the bundle"
    ):
        session.chain.run(np.concatenate(images), (0.9, 0.5), allowed)
    assert len(session.batch([image[0] for image in images])) == 2, "which runs them one after another"


def test_labels_are_left_out_where_they_are_not_wanted(naive: Path) -> None:
    """Images of another size and windows get theirs from the logits, which are the same."""
    with load(naive, provider="openvino") as session, load(naive, provider="cpu") as expected:
        chain, image = session.chain, image_for(session.manifest)
        assert isinstance(chain, Chain)
        with_labels = chain.run(image, (0.5, 0.5), session.capacities("exact"))
        without = chain.run(image, (0.5, 0.5), session.capacities("exact"), labels=False)
        assert without.labels.shape == (1, 0, 0) and with_labels.labels.shape == image.shape[:3]
        np.testing.assert_array_equal(without.logits, with_labels.logits)
        decoder = chain.engines[-1]
        assert isinstance(decoder, OpenVinoEngine)
        infer = []
        made = decoder.idle.get_nowait()
        decoder.idle.put([_Counted(request, infer) for request in made])
        other = np.random.default_rng(3).integers(0, 256, (90, 150, 3), dtype=np.uint8)
        for settings, models in (({}, 2), ({"mode": "slide"}, 2), ({"labels": "model"}, 3)):
            infer.clear()
            found = session(other, **settings)
            assert len(infer) == models * max(1, len(found.windows))
            assert (found.labels == expected(other, **settings).labels).mean() > 0.999
        infer.clear()
        session(image[0])
        assert len(infer) == 3


def test_a_bundle_without_a_file_for_labels_leaves_earlier_results_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last file makes labels whether they are wanted or not, and OpenVINO writes them where it was last told to."""
    monkeypatch.setattr("dovit.export.graph.save.label_part", lambda graph: [graph])  # as bundles were exported before
    # capacities that no other test has: bundles with the same are exported once
    make_bundle(randomised(small_config("setr-naive")), tmp_path, (0, 5, 24))
    with load(tmp_path, provider="openvino") as session:
        assert len(session.manifest.steps[-1].openvino) == 2
        image = image_for(session.manifest)[0]
        other = np.random.default_rng(3).integers(0, 256, (90, 150, 3), dtype=np.uint8)
        for settings in ({}, {"mode": "slide"}):
            first = session(image)
            expected = first.labels.copy()
            first.labels[:] = 255
            with load(tmp_path, provider="cpu") as reference:
                assert (session(other, **settings).labels == reference(other, **settings).labels).mean() > 0.999
            assert (first.labels == 255).all()
            np.testing.assert_array_equal(session(image).labels, expected)
        chain, allowed = session.chain, session.capacities("exact")
        assert isinstance(chain, Chain)
        both = chain.run(np.stack([image, image]), (0.5, 0.5), allowed, labels=False)  # larger than what the first was
        np.testing.assert_array_equal(both.logits[0], chain.run(image[None], (0.5, 0.5), allowed).logits[0])


class _Counted:
    """An inference request that notes each call of infer()."""

    def __init__(self, request: Any, calls: list[None]) -> None:
        self._request, self._calls = request, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def infer(self, **options: Any) -> None:
        self._calls.append(None)
        self._request.infer(**options)


@needs_bf16
def test_bf16_leaves_confidences_sums_and_logits_in_float32(naive: Path) -> None:
    """By the precisions that OpenVINO says it executes: products of the body in bf16, everything else named here in float32."""
    opened = open_bundle(naive)
    executed: dict[str, str] = {}
    products = []
    for step in opened.manifest.steps:
        engine = OpenVinoEngine(step.name, [opened.path(f) for f in step.openvino], threads=1, precision="bf16")
        for model in engine.models:
            for node in model.get_runtime_model().get_ordered_ops():
                about = node.get_rt_info()
                kind, precision = (about[key].astype(str) for key in ("layerType", "runtimePrecision"))
                executed[node.get_friendly_name()] = precision
                if kind in ("FullyConnected", "MatMul", "Convolution"):
                    products.append((node.get_friendly_name(), precision))
    assert sum(precision == "bf16" for _, precision in products) >= 4 * len(opened.manifest.steps)
    results = [name for name in executed if name.startswith(("confidence", "stopped_sum", "logits", "head"))]
    assert any(name.startswith("confidence") for name in results) and any(name.startswith("head") for name in results)
    assert {name: executed[name] for name in results if executed[name] == "bf16"} == {}
    sums = {precision for name, precision in products if name.startswith("sum3")}
    assert sums == {"f32"}, "the sum of stopped tokens is a product with ones"


@needs_bf16
def test_bf16_is_compared_with_float32_once_and_refused_below_the_bounds(
    naive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    real = accuracy.measure
    monkeypatch.setattr(accuracy, "measure", lambda *chains: measured.append(1) or real(*chains))
    monkeypatch.setattr(accuracy, "MIN_LABELS_EQUAL", 0.5)  # random weights: near-equal logits everywhere
    monkeypatch.setattr(accuracy, "MIN_SAME_FATE", 0.5)
    for _ in range(2):
        session = load(naive, provider="openvino", precision="bf16")
    assert len(measured) == 1 and (session.precision, session.schedule) == ("bf16", "rounded")
    [file] = (tmp_path / "dovit" / "openvino").iterdir()
    kept = Bf16Accuracy.model_validate_json(file.read_text())
    assert 0.5 < kept.labels_equal < 1 and 0.5 < kept.same_fate <= 1
    assert kept.miou_loss == 0, "classes of this model are not the scenes'"
    file.write_text('{"labels_equal": 7}')  # damaged: measured again
    load(naive, provider="openvino", precision="bf16")
    assert len(measured) == 2
    monkeypatch.setattr(accuracy, "MIN_LABELS_EQUAL", 1.0)
    with pytest.raises(DovitError, match=r"bf16 is too far from float32 .* labels are equal \(at least 100%\)"):
        load(naive, provider="openvino", precision="bf16")
    assert load(naive, provider="openvino", precision="bf16", check_accuracy=False).precision == "bf16"


def test_miou_on_labelled_scenes_is_bounded() -> None:
    """By hand: 6 of 8 pixels are class 0, 2 are class 1; one of each is taken for the other; 255 does not count."""
    truth = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 255]], np.uint8)
    found = np.array([[0, 0, 0, 0, 0, 1, 0, 1, 7]], np.uint8)
    assert accuracy._miou(truth, found) == pytest.approx((5 / 7 + 1 / 3) / 2)
    assert accuracy._miou(truth, truth) == 1
    Bf16Accuracy(labels_equal=1, same_fate=1, miou_loss=0.009).check(Path("b"))
    with pytest.raises(DovitError, match=r"mIoU is 1\.10 points lower \(at most 1\)"):
        Bf16Accuracy(labels_equal=1, same_fate=1, miou_loss=0.011).check(Path("b"))


@needs_bf16
def test_the_trained_model_is_measured_on_labelled_scenes(tmp_path: Path) -> None:
    """Its mIoU in bf16, as the check finds it, is that of its labels in bf16 by the evaluation's own count."""
    from dovit.evaluation.metrics import Confusion
    from dovit.export.run import export
    from dovit.scenes import scene

    root = Path(__file__).parents[2]
    export(root / "assets" / "streets-tiny.safetensors", tmp_path, {}, None, None, check=False)
    exact, rounded = (load(tmp_path, provider="openvino", precision=p, check_accuracy=False) for p in ("fp32", "bf16"))
    height, width = exact.manifest.image_size
    miou = []
    for session in (exact, rounded):
        confusion = Confusion(19)
        for number in accuracy.SCENES:
            image, labels = scene(number, height, width)
            confusion.add(session(image).labels, labels)
        miou.append(np.nanmean(confusion.iou))
    found = accuracy.measure(rounded.chain, exact.chain)  # type: ignore[arg-type]
    assert found.miou_loss >= miou[0] - miou[1] - 1e-9 and -0.01 < found.miou_loss < 0.01
    found.check(tmp_path)


def test_what_cannot_be_used_is_refused(naive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, sentence in [
        ({"provider": "tpu"}, "unknown provider"),
        ({"provider": "cpu", "precision": "bf16"}, "needs the provider openvino, and cpu was chosen"),
        ({"provider": "cpu", "cache": "here"}, "cache is for the provider openvino"),
        ({"provider": "openvino", "precision": "fp16"}, "precision fp16 is for plans"),
        ({"provider": "openvino", "check_accuracy": 1}, "give True or False"),
        ({"provider": "openvino", "low_memory": True}, "low_memory is for the provider cpu"),
        ({"provider": "openvino", "cache": 1}, "give a folder"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            load(naive, **arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(device, "computes_bf16", lambda: False)
    with pytest.raises(UsageError, match="this CPU has no bf16 instructions"):
        load(naive, provider="openvino", precision="bf16")
    monkeypatch.setenv("DOVIT_PROVIDER", "tpu")
    with pytest.raises(UsageError, match="DOVIT_PROVIDER=tpu: choose one of"):
        load(naive)


def test_auto_without_openvino_takes_onnx_runtime_and_says_why(naive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOVIT_PROVIDER")
    opened = open_bundle(naive)
    steps = tuple(step.model_copy(update={"openvino": ()}) for step in opened.manifest.steps)
    older = type(opened)(opened.root, opened.manifest.model_copy(update={"steps": steps}))
    options: dict[str, Any] = {"threads": 1, "low_memory": False, "check_accuracy": True, "cache": None}
    _, chosen = providers.open_cpu_chain(older, "auto", "fp32", **options)
    assert chosen.name == "cpu" and "as an older dovit made it: export it again" in chosen.why
    with pytest.raises(DovitError, match="as an older dovit made it: export it again"):
        providers.open_cpu_chain(older, "openvino", "fp32", **options)
    device.core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    try:
        missing = "the package openvino is not installed: pip install 'dovit[openvino]'"
        _, chosen = providers.open_cpu_chain(opened, "auto", "fp32", **options)
        assert chosen == ChosenProvider("cpu", missing)
        with pytest.raises(DovitError, match=r"provider openvino cannot be used: .* pip install 'dovit\[openvino\]'"):
            load(naive, provider="openvino")
    finally:
        device.core.cache_clear()


def test_compiled_models_are_kept_where_they_are_asked_to_be(naive: Path, tmp_path: Path) -> None:
    image = image_for(open_bundle(naive).manifest)[0]
    image.flags.writeable = False  # as arrays of Pillow's images are
    labels = [load(naive, provider="openvino", cache=tmp_path / "cache")(image).labels for _ in range(2)]
    assert list((tmp_path / "cache").glob("*.blob")) and (labels[0] == labels[1]).all()


@pytest.mark.parametrize("name", ["bündel".encode(), "bündel".encode("latin-1")], ids=repr)
def test_a_bundle_opens_whatever_its_folder_is_called(
    naive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    """The second is no UTF-8, as every such name is to Python in a plain C locale: Python keeps it with surrogates, which the
    libraries take as little as JSON does."""
    folder = shutil.copytree(naive, tmp_path / os.fsdecode(name))
    image = image_for(open_bundle(folder).manifest)[0]
    labels = load(naive, provider="cpu")(image).labels
    for options in ({"provider": "cpu"}, {"provider": "cpu", "low_memory": True}, {"provider": "openvino"}):
        assert (load(folder, **options)(image).labels == labels).mean() > 0.999  # type: ignore[arg-type]
    assert load(folder, provider="openvino", cache=folder / "cache").provider == "openvino"
    assert list((folder / "cache").glob("*.blob"))

    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    monkeypatch.delenv("DOVIT_PROVIDER")
    assert load(folder).provider_reason
    (known,) = speed.known_speeds()
    assert Path(known.bundle).name == name.decode(errors="backslashreplace")


def test_records_are_utf_8_in_any_locale(naive: Path, tmp_path: Path) -> None:
    """What a process in a plain C locale measured is found by the next one there, and by those elsewhere."""
    folder = shutil.copytree(naive, tmp_path / "bündel")
    code = """
import sys
from dovit.runtime import load
from dovit.runtime.openvino import speed
load(sys.argv[1])
assert [one.bundle.encode().endswith("bündel".encode()) for one in speed.known_speeds()] == [True]
"""
    (tmp_path / "load.py").write_text(code, encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in os.environ.items() if name != "DOVIT_PROVIDER"}
    for more in (plain, {"XDG_CACHE_HOME": plain["XDG_CACHE_HOME"]}):
        command = [sys.executable, str(tmp_path / "load.py"), str(folder)]
        ended = subprocess.run(command, env=environment | more, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert len(list((tmp_path / "home" / "dovit" / "openvino").glob("speed-*.json"))) == 1
