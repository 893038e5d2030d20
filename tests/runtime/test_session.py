"""The inputs of a session and the methods of its results; other tests check what it computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import make_bundle
from models import random_images, randomised, small_config
from PIL import Image
from torch.nn.functional import interpolate

from dovit.runtime import DovitError, Result, Session, UsageError, load
from dovit.runtime.draw import whole_maps
from dovit.runtime.palettes import default_palette

CONFIG = small_config()  # 64×96, 24 tokens, 7 classes, 2 decisions
IMAGE = random_images(CONFIG)[0].numpy()
OTHER = np.random.default_rng(4).integers(0, 256, (50, 33, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(CONFIG), folder)
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return load(folder)


def same(found: Result, expected: Result) -> None:
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.kept == expected.kept and found.tokens == expected.tokens


HALVES = [
    0.5,
    np.float32(0.5),
    np.float64(0.5),
    np.array(0.5),
    np.array([0.5]),
    [0.5, np.float32(0.5)],
    (0.5, 0.5),
    np.array([0.5, 0.5], np.float32),
    torch.tensor(0.5),
    torch.tensor([0.5, 0.5], requires_grad=True),
]


@pytest.mark.parametrize("threshold", HALVES, ids=repr)
def test_thresholds_are_numbers_of_any_kind(session: Session, threshold: Any) -> None:
    assert session.check_thresholds(threshold) == (0.5, 0.5)
    same(session(IMAGE, threshold=threshold), session(IMAGE, threshold=(0.5, 0.5)))
    assert session.check_thresholds(1) == (1, 1) and session.check_thresholds(np.int64(0)) == (0, 0)


def test_rounded_keeps_the_next_multiple_of_16(session: Session) -> None:
    """Of 24 tokens that is 0, 16 or all. Filled up with the least confident of those that stop."""
    assert list(session.capacities("rounded")) == [0, 16, 24]
    seen = set()
    for xi in (0.0, 0.2, 0.25, 0.3, 0.5, 1.0):
        exact = session(IMAGE, threshold=xi)
        found = session(IMAGE, threshold=xi, schedule="rounded")
        assert found.kept[0] == next(count for count in (0, 16, 24) if count >= exact.kept[0])
        assert (found.keep_maps[0] >= exact.keep_maps[0]).all()
        seen.add(found.kept[0])
    assert seen == {0, 16, 24}
    on_gpu = Session(session.manifest, session.chain, "tensorrt-rtx", "bucketed")
    with pytest.raises(UsageError, match="schedule rounded is for a CPU: choose exact or bucketed for plans"):
        on_gpu(IMAGE, schedule="rounded")


WRONG = [
    ({"threshold": True}, "threshold True is no number"),
    ({"threshold": [np.True_, 0.5]}, "is no number"),
    ({"threshold": "0.5"}, "threshold '0.5' is no number"),
    ({"threshold": [None, 0.5]}, "threshold None is no number"),
    ({"threshold": 1 + 0j}, "is no number"),
    ({"threshold": float("nan")}, r"threshold nan lies outside \[0, 1\]"),
    ({"threshold": np.float32("inf")}, "threshold inf lies outside"),
    ({"threshold": []}, "0 thresholds for 2 decisions"),
    ({"threshold": np.zeros((2, 2))}, r"threshold is an array \[2, 2\]"),
    ({"counts": (0.5, 0.3)}, "counts 0.5, 0.3: give whole numbers of tokens; for shares of them, keep="),
    ({"counts": (12.0, 6.0)}, "give whole numbers"),
    ({"counts": (True, False)}, "give whole numbers"),
    ({"counts": "12"}, "give whole numbers"),
    ({"counts": (6, 12)}, "counts 6, 12: give 2 falling numbers of tokens, from 24 to 0"),
    ({"counts": (25, 12)}, "falling numbers"),
    ({"counts": 12}, "counts 12: give 2 falling"),
    ({"keep": (0.3, 0.5)}, "keep 0.3, 0.5: give 2 falling shares of the tokens, from 1 to 0"),
    ({"keep": (12, 6)}, "falling shares"),
    ({"keep": (0.5, float("nan"))}, "falling shares"),
    ({"keep": 0.5}, "falling shares"),
    ({"keep": (0.5, 0.3), "counts": (12, 6)}, "counts and keep both say which tokens stay"),
    ({"keep": (0.5, 0.3), "threshold": 0.9}, "threshold and keep both say"),
    ({"mode": "crop"}, "unknown mode 'crop': choose whole or slide"),
    ({"mode": "slide", "keep_ratio": True}, 'keep_ratio is for mode="whole"'),
    ({"threshold": torch.tensor([0.5]).to_sparse()}, "threshold is a Tensor that numpy cannot take"),
    ({"schedule": "loose"}, "unknown schedule"),
    ({"labels": "window"}, "labels='window': choose image or model"),
    ({"format": "hsv"}, "unknown format 'hsv'"),
    ({"layout": "nchw"}, "unknown layout 'nchw'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=str)
def test_invalid_arguments_are_refused(session: Session, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        session(IMAGE, **arguments)
    with pytest.raises(UsageError, match=sentence):  # at once, not at the first image
        session.stream([IMAGE], **arguments)


@pytest.mark.parametrize(
    "arguments", [{"threads": 0}, {"threads": 1.5}, {"threads": True}, {"device": "cuda"}, {"device": -1}]
)
def test_threads_and_device_are_numbers(folder: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(arguments))}={next(iter(arguments.values()))!r}: give "):
        load(folder, **arguments)


@pytest.mark.parametrize("name", ["threads", "device"])
@pytest.mark.parametrize("exponent", [31, 63, 20_000])  # 2**20000 has more digits than Python prints
def test_numbers_too_large_are_refused(folder: Path, name: str, exponent: int) -> None:
    with pytest.raises(UsageError, match=f"^{name}=.*: give "):
        load(folder, **{name: 2**exponent})


ARGUMENTS = ["mode", "schedule", "labels", "format", "layout", "threshold", "counts", "keep", "return_logits"]


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("kind", ["array", "no digits", "empty"])
def test_arguments_of_any_type_are_refused(session: Session, name: str, kind: str) -> None:
    value: Any = {"array": np.full(7, np.nan), "no digits": [2**20_000] * 7, "empty": np.zeros(0)}[kind]
    with pytest.raises(UsageError, match=name):
        session(IMAGE, **{name: value})


@pytest.mark.parametrize("path", [None, 3, b"engines", ["engines"], np.zeros(3)], ids=str)
def test_a_path_is_a_str_or_a_path(path: Any) -> None:
    with pytest.raises(UsageError, match=f"^path is a {type(path).__name__}: give the folder of the bundle"):
        load(path)


@pytest.mark.parametrize("path", [None, 3, b"a.png", np.zeros(3)], ids=str)
def test_labels_are_saved_under_a_str_or_a_path(session: Session, path: Any) -> None:
    with pytest.raises(UsageError, match=f"^path is a {type(path).__name__}: give the file's name"):
        session(IMAGE).save(path)


@pytest.mark.parametrize("name", ["low_memory", "check_accuracy", "graph"])
@pytest.mark.parametrize("value", [np.zeros(3), "no", 1], ids=str)
def test_flags_are_true_or_false(folder: Path, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} is a {type(value).__name__}: give True or False"):
        load(folder, **{name: value})


@pytest.mark.parametrize("value", ["int8", ["bf16"], np.zeros(3), 16], ids=str)
@pytest.mark.parametrize("options", [{}, {"provider": "openvino"}, {"backend": "tensorrt"}], ids=str)
def test_an_unknown_precision_is_refused(folder: Path, value: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^unknown precision .*: choose one of fp32, fp16, bf16$"):
        load(folder, precision=value, **options)


def test_what_is_for_another_backend_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each option that has no effect, and none that says what is the default anyway."""
    on_cpu: dict[str, Any] = {"provider": "cpu", "threads": 1, "low_memory": True}
    load(folder, "onnxruntime", **on_cpu, device=7, graph=False).close()
    on_cpu |= {"check_accuracy": False, "cache": "here"}
    with pytest.raises(DovitError, match="no tensorrt plans in this bundle"):
        load(folder, "tensorrt", **on_cpu, device=7, graph=True)
    advice = "leave that out, or give its backend"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"no effect with backend onnxruntime: device, graph; {advice}"),
        ("WARNING", f"no effect with backend tensorrt: {', '.join(on_cpu)}; {advice}"),
    ]
    caplog.clear()
    defaults: dict[str, Any] = {"provider": "auto", "threads": None, "low_memory": False, "device": 0, "graph": None}
    load(folder, **defaults, check_accuracy=True, cache=None).close()
    with pytest.raises(DovitError):
        load(folder, "tensorrt-rtx", **defaults, check_accuracy=True, cache=None)
    assert not caplog.records


def test_shares_are_counts_of_tokens(session: Session) -> None:
    for keep, counts in [
        ((0.5, 0.25), (12, 6)),
        ((1, 0), (24, 0)),
        ((0.9375, 0.1875), (23, 5)),
        (np.array([0.49, 0.02], np.float32), (12, 0)),
    ]:
        found = session(IMAGE, keep=keep)
        assert found.kept == counts
        same(found, session(IMAGE, counts=np.array(counts)))


def test_lists_give_what_single_calls_give(session: Session, tmp_path: Path) -> None:
    Image.fromarray(OTHER).save(tmp_path / "a.png")
    images = [IMAGE, OTHER, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(IMAGE)]
    settings: list[dict[str, Any]] = [
        {},
        {"mode": "slide"},
        {"keep": (0.5, 0.3)},
        {"schedule": "bucketed", "labels": "model"},
        {"schedule": "bucketed", "keep_ratio": True, "return_logits": True},
    ]
    for setting in settings:
        results = session.batch(images, **setting)
        for image, result in zip(images, results, strict=True):
            alone = session(image, **setting)
            same(result, alone)
            assert (result.logits is None) == (alone.logits is None) == (not setting.get("return_logits"))
        same(results[1], results[2])
    with pytest.raises(UsageError, match=r"not list; for several images call session\.batch"):
        session([IMAGE, OTHER])
    for one in ("image.png", b"image", 5, None):
        with pytest.raises(UsageError, match=r"for one, call session\(image\)"):
            session.batch(one)


def test_arrays_of_other_kinds(session: Session) -> None:
    expected = session(OTHER)
    same(session(OTHER[..., ::-1], format="bgr"), expected)
    same(session(torch.from_numpy(OTHER).permute(2, 0, 1), layout="chw"), expected)
    same(session(OTHER.astype(np.float32) / 255), expected)


def test_labels_at_the_models_size(session: Session) -> None:
    small = session(OTHER, labels="model")
    assert small.labels.shape == (64, 96)
    resized = np.asarray(Image.fromarray(OTHER).resize((96, 64), Image.Resampling.BILINEAR))
    same(small, session(resized))
    assert session(OTHER, labels="model", keep_ratio=True).labels.shape == (64, 42)
    assert session(OTHER, labels="model", mode="slide").labels.shape == (145, 96)  # enlarged until the window fits


INSIDE = [((50, 33), (64, 42)), ((20, 200), (10, 96)), ((128, 192), (64, 96)), ((1, 900), (1, 96))]


@pytest.mark.parametrize(("size", "inside"), INSIDE)
def test_an_image_keeps_its_ratio(session: Session, size: tuple[int, int], inside: tuple[int, int]) -> None:
    """Resized, padded with the mean, cut and resized back: as mmsegmentation's postprocess_result does, in torch."""
    image = np.random.default_rng(6).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = session(image, keep_ratio=True, return_logits=True)
    padded = np.empty((64, 96, 3), np.uint8)
    padded[:] = (124, 116, 104)  # ImageNet's mean
    padded[: inside[0], : inside[1]] = np.asarray(
        Image.fromarray(image).resize((inside[1], inside[0]), Image.Resampling.BILINEAR)
    )
    alone = session(padded, return_logits=True)
    assert alone.logits is not None and found.logits is not None
    np.testing.assert_array_equal(found.logits, alone.logits)
    logits = interpolate(torch.from_numpy(alone.logits)[None], (64, 96), mode="bilinear")[..., : inside[0], : inside[1]]
    expected = interpolate(logits, size, mode="bilinear")[0].argmax(0).numpy()
    assert found.labels.shape == size and (found.labels == expected).mean() > 0.999
    assert found.kept == alone.kept and found.filled == (None if inside == (64, 96) else inside)
    keeps, _ = whole_maps(found, size, (64, 96))
    if found.filled:
        assert keeps[0].shape == size
        corner = alone.keep_maps[0].repeat(16, 0).repeat(16, 1)[inside[0] - 1, inside[1] - 1]
        assert keeps[0][-1, -1] == corner and keeps[0][0, 0] == alone.keep_maps[0, 0, 0]


def test_the_bundle_says_what_is_not_said(session: Session) -> None:
    chain = session.chain
    kept = Session(session.manifest.model_copy(update={"keep_ratio": True}), chain, "onnxruntime")
    same(kept(OTHER), session(OTHER, keep_ratio=True))
    same(kept(OTHER, keep_ratio=False), session(OTHER))
    sliding = Session(session.manifest.model_copy(update={"mode": "slide"}), chain, "onnxruntime")
    assert len(sliding(OTHER).windows) == len(sliding.batch([OTHER])[0].windows) == 3
    same(sliding(OTHER, mode="whole"), session(OTHER))


def test_a_closed_session_says_so(folder: Path) -> None:
    with load(folder) as session:
        expected = session(IMAGE)
        stream = session.stream([IMAGE, IMAGE], schedule="bucketed")
        assert repr(session) == "Session(setr-naive, ViT 6×64, 64×96, 7 classes, 24 tokens, 2 decisions, onnxruntime)"
    for call in (lambda: session(IMAGE), lambda: list(stream), lambda: session.batch([IMAGE]), lambda: session.chain):
        with pytest.raises(UsageError, match="this session is closed: load the bundle again"):
            call()
    session.close()
    assert repr(session).endswith("closed)")
    assert expected.labels.shape == (64, 96)  # results stay


def result(**changes: Any) -> Result:
    labels = np.array([[0, 0, 0], [0, 2, 2]], np.uint8)
    given = {"labels": labels, "kept": (3, 1), "tokens": 6, "keep_maps": np.zeros(0), "confidence_maps": np.zeros(0)}
    return Result(**(given | changes))


def test_a_result_in_a_line() -> None:
    assert repr(result()) == "Result(labels 2×3 uint8: class 0 67%, class 2 33%; kept 3/1 of 6 tokens)"
    named = result(class_names=("road", "sky", "tree"), kept=(), logits=np.zeros((3, 2, 2)))
    assert repr(named) == "Result(labels 2×3 uint8: road 67%, tree 33%; 6 tokens, logits [3, 2, 2])"
    many = result(labels=np.arange(6, dtype=np.int16).reshape(2, 3))
    assert (
        repr(many) == "Result(labels 2×3 int16: class 0 17%, class 1 17%, class 2 17% and 3 more; kept 3/1 of 6 tokens)"
    )


def test_results_know_names_and_colours(session: Session, tmp_path: Path) -> None:
    found = session(OTHER, mode="slide")
    assert found.palette == session.palette == default_palette(7) and found.class_names is session.class_names is None
    assert "windows" in repr(found) and "y=0" in repr(found.windows[0])
    found.save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), found.labels)
        assert image.getpalette()[:21] == [value for colour in default_palette(7) for value in colour]  # type: ignore[index]
    mixed = found.overlay(OTHER, alpha=0.25)
    expected = OTHER * 0.75 + np.array(default_palette(7))[found.labels] * 0.25
    assert np.abs(np.asarray(mixed) - expected).max() <= 0.5
    result().save(str(tmp_path / "bare.png"))  # without a palette
    for call, sentence in [
        (lambda: found.overlay(IMAGE), "64×96 pixels, the labels 50×33"),
        (lambda: found.overlay(OTHER, alpha=2), "alpha 2 lies outside"),
        (lambda: found.save(tmp_path / "labels.jpg"), r"give a name that ends in \.png"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            call()
    with pytest.raises(DovitError, match="no such image"):
        found.overlay(tmp_path / "gone.png")


def test_every_session_has_the_threads_that_it_was_given(folder: Path) -> None:
    """Beside one another, beside sessions of other libraries, and without using the cores between calls."""
    code = f"""
import os, time, dovit, numpy as np, onnxruntime as ort
folder = {str(folder)!r}
def added(make):
    before = len(os.listdir("/proc/self/task"))
    made = make()
    return made, len(os.listdir("/proc/self/task")) - before
first, _ = added(lambda: dovit.load(folder, threads=1))  # the libraries' own threads start here
one, of_one = added(lambda: dovit.load(folder, threads=1))
three, of_three = added(lambda: dovit.load(folder, threads=3))
assert (of_one, of_three) == (0, 2 * len(three.manifest.steps)), (of_one, of_three)
image = np.zeros((*three.manifest.image_size, 3), np.uint8)
assert (three(image).labels == one(image).labels).all()
file = folder + "/" + three.manifest.steps[-1].onnx
ort.InferenceSession(file)  # another library's: with threads of its own
three(image)
used = time.process_time()
time.sleep(0.1)
assert time.process_time() - used < 0.01, time.process_time() - used
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_debug_messages(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For a person who debugs: what is loaded, and what each decision keeps, from the logger `dovit`."""
    caplog.set_level("DEBUG", logger="dovit")
    with load(folder) as session:
        result = session(np.zeros((*session.manifest.image_size, 3), np.uint8), threshold=1.0)
    tokens = session.manifest.tokens
    kept = [
        f"step {name}: decision {k} keeps {tokens} of {tokens} tokens" for k, name in enumerate(("stem", "block2"), 1)
    ]
    assert result.kept == (tokens, tokens)
    assert [r.getMessage() for r in caplog.records if r.name == "dovit"] == [
        f"{folder}: provider cpu (DOVIT_PROVIDER is set), fp32",
        *kept,
    ]
